/**
 * The outer worker of a page: holds the connection, and starts the compute workers.
 *
 * It is a worker because timers and sockets of a hidden page's own thread are slowed down.
 */

import { browserInputs } from './browserInputs.ts'
import type { OpenFrame } from './channel.ts'
import type { FromOuter, ToOuter, WorkerControls } from './outerMessages.ts'
import { RemoteWorker } from './remoteWorker.ts'

const scope = self as unknown as DedicatedWorkerGlobalScope
let worker: RemoteWorker | null = null
let frames = 0
/** By the id of a frame that the page was asked for: hears of its port. */
const asked = new Map<number, (port: MessagePort | null) => void>()

function send(message: FromOuter): void {
  scope.postMessage(message)
}

/** Only a page has frames: it is asked for one, and passes on the port to it. */
const openFrame: OpenFrame = (code, outputBytesMax) => {
  const id = (frames += 1)
  const port = new Promise<MessagePort | null>((resolve) => asked.set(id, resolve))
  send({ kind: 'frame', id, code, outputBytesMax })
  return {
    port,
    close: () => {
      asked.get(id)?.(null)
      asked.delete(id)
      send({ kind: 'frame-end', id })
    },
  }
}

scope.onmessage = ({ data }: MessageEvent<ToOuter>) => {
  if (data.kind === 'start' && !worker) {
    const { token, kindShown, threads } = data
    worker = new RemoteWorker({
      token,
      kind: kindShown,
      onChange: send,
      openFrame,
      inputs: browserInputs(),
      ...(threads !== undefined && { threads }),
    })
    set(worker, data.controls)
    worker.start()
  } else if (data.kind === 'set' && worker) set(worker, data.controls)
  else if (data.kind === 'drain') worker?.drain()
  else if (data.kind === 'frame') {
    asked.get(data.id)?.(data.port)
    asked.delete(data.id)
  }
}

function set(
  target: RemoteWorker,
  { share, bytesMax, inputBytesMax, paused, functions }: WorkerControls,
): void {
  if (functions !== undefined) target.allowFunctions(functions)
  if (share !== undefined) target.limit(share)
  if (bytesMax !== undefined) target.limitBytes(bytesMax)
  if (inputBytesMax !== undefined) target.limitInputs(inputBytesMax)
  if (paused === null) target.resume()
  else if (paused !== undefined) target.pause(paused)
}
