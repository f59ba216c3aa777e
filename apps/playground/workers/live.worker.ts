/** The shared worker that holds the one set of live streams of a browser, however many tabs are open. */

import { LiveHub } from '../lib/live/hub'
import type { ToHub } from '../lib/live/protocol'

const scope = self as unknown as SharedWorkerGlobalScope
const hub = new LiveHub()

scope.onconnect = ({ ports: [port] }) => {
  if (!port) return
  const watcher = (message: unknown) => port.postMessage(message)
  port.onmessage = ({ data }: MessageEvent<ToHub>) => hub.handle(data, watcher)
}
