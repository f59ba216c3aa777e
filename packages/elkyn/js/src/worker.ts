/** The script of the SharedWorker that listens for all pages: see `sharedStreams`. */

import { serveStreams } from './shared.js'

const serve = serveStreams()

addEventListener('connect', (event) => {
  const [port] = (event as MessageEvent).ports
  if (port) serve(port)
})
