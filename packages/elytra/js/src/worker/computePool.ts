/** The compute threads of a worker: each has one task at a time, and others wait in order. */

import { SennitError } from '../errors.ts'
import type { OpenFrame, StartCompute } from './channel.ts'
import { ComputeThread, type Computed, type ComputeTask } from './computeThread.ts'

export class ComputePool {
  /** Started as they are needed: a worker with one task at a time has one. */
  private readonly threads: ComputeThread[] = []
  private readonly idle: ComputeThread[] = []
  private readonly waiting: ((thread: ComputeThread) => void)[] = []
  private share = 1

  constructor(
    private readonly start: StartCompute,
    readonly size: number,
    private readonly openFrame: OpenFrame | null = null,
  ) {}

  /** Start the first thread before there is a task. */
  open(): void {
    if (this.threads.length === 0) this.idle.push(this.added())
  }

  /** Let every thread compute for this share of the time. */
  limit(share: number): void {
    this.share = share
    for (const thread of this.threads) thread.limit(share)
  }

  /** Why threads cannot be started at all, or null. */
  get broken(): string | null {
    return this.threads.find(({ broken }) => broken !== null)?.broken ?? null
  }

  /**
   * Compute a task on the next free thread; `signal` stops it alone, also in a loop without an end.
   *
   * @param onStart hears that a thread has it.
   * @param onRows hears how many rows were computed, now and then.
   * @throws SennitError as `ComputeThread.run` does.
   */
  async run(
    task: ComputeTask,
    signal: AbortSignal,
    onStart: () => void,
    onRows: (rows: number) => void,
  ): Promise<Computed> {
    const thread = await this.acquire(signal)
    const stop = (): void => thread.cancel()
    try {
      if (signal.aborted) throw cancelled()
      signal.addEventListener('abort', stop)
      onStart()
      return await thread.run(task, onRows)
    } finally {
      signal.removeEventListener('abort', stop)
      this.release(thread)
    }
  }

  /** Stop all threads for good; what they compute fails with `cancelled`, as does what waits once it is aborted. */
  close(): void {
    for (const thread of this.threads) thread.close()
  }

  private async acquire(signal: AbortSignal): Promise<ComputeThread> {
    if (signal.aborted) throw cancelled()
    const thread = this.idle.pop()
    if (thread) return thread
    if (this.threads.length < this.size) return this.added()
    return new Promise((resolve, reject) => {
      this.waiting.push(resolve)
      signal.addEventListener('abort', () => {
        const at = this.waiting.indexOf(resolve)
        if (at >= 0) this.waiting.splice(at, 1)
        reject(cancelled()) // without effect on one that has got a thread
      })
    })
  }

  private release(thread: ComputeThread): void {
    const next = this.waiting.shift()
    if (next) next(thread)
    else this.idle.push(thread)
  }

  private added(): ComputeThread {
    const thread = new ComputeThread(this.start, this.openFrame)
    if (this.share < 1) thread.limit(this.share)
    thread.open()
    this.threads.push(thread)
    return thread
  }
}

function cancelled(): SennitError {
  return new SennitError('the attempt was cancelled', { code: 'cancelled' })
}
