/** The script of the SharedWorker that listens for all pages: see `sharedStreams`. */

import { serveStreams } from './shared.ts'
import { socketStreams } from './socket.ts'

const serve = serveStreams(socketStreams())

addEventListener('connect', (event) => {
  const [port] = (event as MessageEvent).ports
  if (port) serve(port)
})
