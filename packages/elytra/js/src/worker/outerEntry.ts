/**
 * The outer worker of a page: holds the connection, and starts the compute worker.
 *
 * It is a worker because timers and sockets of a hidden page's own thread are slowed down.
 */

import type { FromOuter, ToOuter, WorkerControls } from './outerMessages.ts'
import { RemoteWorker } from './remoteWorker.ts'

const scope = self as unknown as DedicatedWorkerGlobalScope
let worker: RemoteWorker | null = null

scope.onmessage = ({ data }: MessageEvent<ToOuter>) => {
  if (data.kind === 'start' && !worker) {
    const { token, kindShown } = data
    const onChange = (state: FromOuter): void => scope.postMessage(state)
    worker = new RemoteWorker({ token, kind: kindShown, onChange })
    set(worker, data.controls)
    worker.start()
  } else if (data.kind === 'set' && worker) set(worker, data.controls)
  else if (data.kind === 'drain') worker?.drain()
}

function set(target: RemoteWorker, { share, bytesMax, paused }: WorkerControls): void {
  if (share !== undefined) target.limit(share)
  if (bytesMax !== undefined) target.limitBytes(bytesMax)
  if (paused === null) target.resume()
  else if (paused !== undefined) target.pause(paused)
}
