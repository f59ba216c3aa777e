/**
 * The outer worker of a page: holds the connection, and starts the compute workers.
 *
 * It is a worker because timers and sockets of a hidden page's own thread are slowed down.
 */

import { browserInputs } from './browserInputs.ts'
import type { FromOuter, ToOuter, WorkerControls } from './outerMessages.ts'
import { RemoteWorker } from './remoteWorker.ts'

const scope = self as unknown as DedicatedWorkerGlobalScope
let worker: RemoteWorker | null = null

scope.onmessage = ({ data }: MessageEvent<ToOuter>) => {
  if (data.kind === 'start' && !worker) {
    const { token, kindShown, threads } = data
    const onChange = (state: FromOuter): void => scope.postMessage(state)
    worker = new RemoteWorker({
      token,
      kind: kindShown,
      onChange,
      inputs: browserInputs(),
      ...(threads !== undefined && { threads }),
    })
    set(worker, data.controls)
    worker.start()
  } else if (data.kind === 'set' && worker) set(worker, data.controls)
  else if (data.kind === 'drain') worker?.drain()
}

function set(
  target: RemoteWorker,
  { share, bytesMax, inputBytesMax, paused }: WorkerControls,
): void {
  if (share !== undefined) target.limit(share)
  if (bytesMax !== undefined) target.limitBytes(bytesMax)
  if (inputBytesMax !== undefined) target.limitInputs(inputBytesMax)
  if (paused === null) target.resume()
  else if (paused !== undefined) target.pause(paused)
}
