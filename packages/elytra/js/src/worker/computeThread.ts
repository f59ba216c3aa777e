/**
 * The outer worker's side of the channel: one compute worker, which is replaced when it hangs or dies.
 *
 *   idle -> run -> progress … -> done | failed -> idle
 *            |-> silent too long, dead, cancelled: terminated, and another one started
 */

import { SennitError } from '../errors.ts'
import type { PlanJson } from '../plan/json.ts'
import type {
  ComputePort,
  FromCompute,
  OpenFrame,
  PageFrame,
  ResultSchema,
  StartCompute,
} from './channel.ts'

/** One task: its plan over an Arrow IPC stream, which is handed over. */
export interface ComputeTask {
  plan: PlanJson
  schema: ResultSchema
  input: Uint8Array<ArrayBuffer>
  /** Without a report of rows for this time the compute worker is taken to hang. */
  silenceSeconds: number
}

export interface Computed {
  rows: number
  data: Uint8Array<ArrayBuffer>
  /** The buffer of the task's input, which the caller may use again. */
  input: ArrayBuffer
}

/** Ticks in `silenceSeconds`. */
const TICKS = 8
/** Of one task: as many as it may have functions. */
const FRAMES_MAX = 4

interface Running {
  ticket: number
  onRows: (rows: number) => void
  /** Ticks since the last report. Not times: after a tab was frozen one tick has passed, not minutes. */
  silent: number
  settle: (end: Computed | SennitError) => void
}

export class ComputeThread {
  private port: ComputePort | null = null
  private isReady = false
  private running: Running | null = null
  private tickets = 0
  private share = 1
  /** Those of the task that is computed, by the id that the compute worker gave. */
  private readonly frames = new Map<number, PageFrame>()
  /** Why it cannot be started at all, or null: another attempt would end in the same way. */
  broken: string | null = null

  /** @param openFrame opens frames for functions of others; null where they do not run. */
  constructor(
    private readonly start: StartCompute,
    private readonly openFrame: OpenFrame | null = null,
  ) {}

  /** Start the compute worker before there is a task. */
  open(): void {
    this.port ??= this.started()
  }

  /** Compute for this share of the time, and sleep otherwise. */
  limit(share: number): void {
    this.share = share
    this.port?.post({ kind: 'share', share }, [])
  }

  /**
   * Compute a task; one at a time.
   *
   * @param onRows hears how many rows were computed, now and then.
   * @throws SennitError as the plan does; with `unavailable` if the compute worker hangs or dies,
   * with `cancelled` after `cancel`.
   */
  async run(task: ComputeTask, onRows: (rows: number) => void): Promise<Computed> {
    if (this.running) throw new Error('a task is computed already')
    const { plan, schema, input } = task
    const ticket = (this.tickets += 1)
    const ended = new Promise<Computed | SennitError>((settle) => {
      this.running = { ticket, onRows, silent: 0, settle }
    })
    const timer = setInterval(() => this.tick(), (task.silenceSeconds * 1000) / TICKS)
    this.open()
    this.port?.post({ kind: 'compute', ticket, plan, schema, input }, [input.buffer])
    const end = await ended
    clearInterval(timer)
    if (end instanceof SennitError) throw end
    return end
  }

  /** Stop what is computed. */
  cancel(): void {
    if (!this.running) return
    this.replace()
    this.settle(new SennitError('the attempt was cancelled', { code: 'cancelled' }))
  }

  /** Stop the compute worker for good; what it computes fails with `cancelled`. */
  close(): void {
    this.port?.terminate()
    this.port = null
    this.settle(new SennitError('the attempt was cancelled', { code: 'cancelled' }))
  }

  private started(): ComputePort {
    this.isReady = false
    const port = this.start(
      (message) => this.port === port && this.receive(message),
      (reason) => this.port === port && this.died(reason),
    )
    if (this.share < 1) port.post({ kind: 'share', share: this.share }, [])
    return port
  }

  private replace(): void {
    this.port?.terminate()
    this.port = this.started()
  }

  private receive(message: FromCompute): void {
    if (message.kind === 'ready') {
      this.isReady = true
      return
    }
    if (message.kind === 'frame-end') return this.endFrame(message.id)
    const { running } = this
    if (message.ticket !== running?.ticket) return
    if (message.kind === 'frame') {
      this.addFrame(message)
    } else if (message.kind === 'progress') {
      running.silent = 0
      running.onRows(message.rows)
    } else if (message.kind === 'done') {
      const { rows, data, input } = message
      this.settle({ rows, data, input })
    } else {
      this.settle(new SennitError(message.message, { code: message.code }))
    }
  }

  private addFrame({ id, code, outputBytesMax }: Extract<FromCompute, { kind: 'frame' }>): void {
    const isRefused = this.frames.size >= FRAMES_MAX || this.frames.has(id)
    const frame = isRefused ? null : (this.openFrame?.(code, outputBytesMax) ?? null)
    if (frame) this.frames.set(id, frame)
    const { port } = this
    void (frame?.port ?? Promise.resolve(null)).then((found) =>
      port?.post({ kind: 'frame', id, port: found }, found ? [found] : []),
    )
  }

  private endFrame(id: number): void {
    this.frames.get(id)?.close()
    this.frames.delete(id)
  }

  private tick(): void {
    if (!this.running) return
    this.running.silent += 1
    if (this.running.silent <= TICKS) return
    this.replace()
    this.settle(unavailable('the compute worker made no progress'))
  }

  private died(reason: string): void {
    this.port?.terminate()
    this.port = null
    // One that never ran would not run at the next try either.
    if (this.isReady) this.open()
    else this.broken = reason
    this.settle(unavailable(`the compute worker has died: ${reason}`))
  }

  private settle(end: Computed | SennitError): void {
    const { running } = this
    this.running = null
    // A task that was stopped ends its functions here, in whatever loop they are.
    for (const id of [...this.frames.keys()]) this.endFrame(id)
    running?.settle(end)
  }
}

function unavailable(message: string): SennitError {
  return new SennitError(message, { code: 'unavailable' })
}
