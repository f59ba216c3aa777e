/** The script of the SharedWorker that opens one event stream for each path, for all pages. */

import { multicast } from './multicast.ts'
import { serveStreams } from './shared.ts'
import { openStream } from './stream.ts'

const serve = serveStreams(multicast(openStream))

addEventListener('connect', (event) => {
  const [port] = (event as MessageEvent).ports
  if (port) serve(port)
})
