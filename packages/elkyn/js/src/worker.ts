/** The script of the SharedWorker: `new SharedWorker(new URL('@sennit/elkyn/worker', …))`. */

import { serveStreams } from './shared'

const serve = serveStreams()

addEventListener('connect', (event) => {
  const [port] = (event as MessageEvent).ports
  if (port) serve(port)
})
