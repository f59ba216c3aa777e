/** The compute worker of a page; its response alone allows code to be generated. */

import type { ToCompute } from './channel.ts'
import { serveCompute } from './computeLoop.ts'

const scope = self as unknown as DedicatedWorkerGlobalScope
const receive = serveCompute((message, transfer) => scope.postMessage(message, transfer))
scope.onmessage = ({ data }: MessageEvent<ToCompute>) => receive(data)
