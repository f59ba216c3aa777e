/** The compute worker's side of the channel: computes one task after the other, and nothing else. */

import { SennitError } from '../errors.ts'
import type { OpenSandbox } from '../sandbox/sandbox.ts'
import type { FromCompute, ToCompute } from './channel.ts'
import { compute } from './compute.ts'
import { Frames } from './frames.ts'

/** As often as the outer worker needs to hear of rows, and this loop of new settings. */
const PROGRESS_MS = 50
const MESSAGE_MAX = 500
/** A longer sleep would look like a kernel that hangs; where batches are slow, more is computed than `share`. */
const SLEEP_MS_MAX = 2000

/**
 * Serve the outer worker.
 *
 * @param post sends a message with the buffers that are handed over.
 * @returns receives its messages.
 */
export function serveCompute(
  post: (message: FromCompute, transfer: ArrayBuffer[]) => void,
): (message: ToCompute) => void {
  const pace = new Pace()
  const frames = new Frames((message) => post(message, []))
  post({ kind: 'ready' }, [])
  return (message) => {
    if (message.kind === 'share') pace.share = message.share
    else if (message.kind === 'frame') frames.opened(message.id, message.port)
    else void answer(message, pace, post, frames.openFor(message.ticket))
  }
}

async function answer(
  { ticket, plan, schema, input }: Extract<ToCompute, { kind: 'compute' }>,
  pace: Pace,
  post: (message: FromCompute, transfer: ArrayBuffer[]) => void,
  open: OpenSandbox,
): Promise<void> {
  let rows = 0
  try {
    pace.begin()
    const onRows = async (more: number): Promise<void> => {
      rows += more
      if (pace.isDue) {
        post({ kind: 'progress', ticket, rows }, [])
        await pace.pause()
      }
    }
    const data = await compute(plan, schema, input, onRows, open)
    post({ kind: 'done', ticket, rows, data, input: input.buffer }, [data.buffer, input.buffer])
  } catch (error) {
    const code = error instanceof SennitError ? error.code : 'internal'
    post({ kind: 'failed', ticket, code, message: String(error).slice(0, MESSAGE_MAX) }, [])
  }
}

/** When the loop reports and pauses, and for how long. */
class Pace {
  share = 1
  private since = 0

  begin(): void {
    this.since = performance.now()
  }

  get isDue(): boolean {
    return performance.now() - this.since >= PROGRESS_MS
  }

  /** Let messages arrive, and sleep so long that the time computed is `share` of all. */
  async pause(): Promise<void> {
    const computed = performance.now() - this.since
    const sleep = Math.min(SLEEP_MS_MAX, computed * (1 / this.share - 1))
    // A timer of a hidden page would run once a second; those of workers are not throttled.
    await (sleep >= 1 ? new Promise((resolve) => setTimeout(resolve, sleep)) : turn())
    this.since = performance.now()
  }
}

/** Let the thread's other events happen, without a timer. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => {
      port1.close()
      resolve()
    }
    port2.postMessage(null)
  })
}
