/** One attempt at a task: its input, its rows on a compute thread, its result. */

import { SennitError } from '../errors.ts'
import { planHash } from '../plan/canonical.ts'
import { sha256Hex } from '../uploads/sha256.ts'
import type { ByteBudget } from './byteBudget.ts'
import type { ComputePool } from './computePool.ts'
import type { InputBuffers } from './inputBuffers.ts'
import type { FromWorker, Task } from './messages.ts'
import type { NodeRequests } from './nodeRequests.ts'

/** The engine's version: the states of aggregates have no other format. */
export const ENGINE = 'sennit-js 0.1.0'

/** Of the lease, in which a compute thread has to report: before the node gives the task to others. */
const SILENCE_SHARE = 0.7

/** What an attempt uses of its worker. */
export interface AttemptParts {
  requests: NodeRequests
  pool: ComputePool
  /** Of inputs that are fetched, wait or are computed. */
  memory: ByteBudget
  buffers: InputBuffers
  /** A task with a larger input is rejected. */
  inputBytesMax: number
  /** Of a result that is sent as a message. */
  inlineBytesMax: number
}

/** Hears what an attempt has done. */
export interface AttemptEvents {
  received: (bytes: number) => void
  /** `phase` has changed. */
  moved: () => void
  computed: (rows: number, seconds: number) => void
  sent: (bytes: number) => void
}

/** `queued`: for memory. `waiting`: its input is here, and all threads compute others. */
export type Phase = 'queued' | 'fetching' | 'waiting' | 'computing' | 'sending'

export class Attempt {
  /** Aborted when the node does not want the result any more. */
  readonly control = new AbortController()
  phase: Phase = 'queued'
  /** Of its input, and not received yet. */
  bytesExpected: number
  /** Grows with each report: the node renews the lease for more than before alone. */
  progress = 0
  renewedAt = 0

  constructor(readonly task: Task) {
    this.bytesExpected = task.inputBytes
  }

  /**
   * Compute the result.
   *
   * @throws SennitError why there is none; with `cancelled` after `control.abort()`.
   */
  async result(parts: AttemptParts, events: AttemptEvents): Promise<FromWorker> {
    const { task } = this
    const { signal } = this.control
    if ((await planHash(task.spec.plan)) !== task.planHash)
      throw new SennitError('the plan has another hash', { code: 'bad-input' })
    const { inputBytes } = task
    if (inputBytes > parts.inputBytesMax)
      throw new SennitError(
        `the input has ${inputBytes} bytes, and a thread of this worker may have ${parts.inputBytesMax}`,
        { code: 'memory-cap-exceeded' },
      )
    await parts.memory.reserve(inputBytes, signal)
    this.move('fetching', events)
    let data: Uint8Array<ArrayBuffer>
    try {
      data = await this.computed(parts, events)
    } finally {
      parts.memory.release(inputBytes)
    }
    this.move('sending', events)
    const sha256 = await sha256Hex(data)
    const isInline = data.length <= parts.inlineBytesMax
    if (!isInline) await parts.requests.upload(task, data, sha256, signal)
    events.sent(data.length)
    const { attempt, inputSha256 } = task
    const bound = { attempt, planHash: task.planHash, inputSha256, engine: ENGINE }
    return { word: 'partial', ...bound, sha256, data: isInline ? data : null }
  }

  private async computed(
    { requests, pool, buffers }: AttemptParts,
    events: AttemptEvents,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { task } = this
    const { signal } = this.control
    const { plan } = task.spec
    let received = 0
    const input = await requests.input(task, signal, (bytes) => {
      const more = bytes - received
      received = bytes
      this.bytesExpected = task.inputBytes - received
      this.progress += more
      events.received(more)
    })
    this.bytesExpected = 0
    this.move('waiting', events)
    const silenceSeconds = SILENCE_SHARE * task.leaseSeconds
    let since = 0
    let rows = 0
    const passed = (rowsDone: number): void => {
      const now = performance.now()
      const more = rowsDone - rows
      this.progress += more
      events.computed(more, (now - since) / 1000)
      rows = rowsDone
      since = now
    }
    const started = (): void => {
      since = performance.now()
      this.move('computing', events)
    }
    const compute = { plan, schema: task.schema, input, silenceSeconds }
    const made = await pool.run(compute, signal, started, passed)
    passed(made.rows)
    buffers.recycle(made.input)
    return made.data
  }

  private move(phase: Phase, events: AttemptEvents): void {
    this.phase = phase
    events.moved()
  }
}
