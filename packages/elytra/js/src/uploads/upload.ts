/**
 * The upload of one file:
 *
 *   starting -> sending <-> paused | waiting -> completing -> done
 *                  any of them -> failed (resume() retries) | cancelled
 *
 * Parts are sent by a shared pool of workers; parts that the node has stored are not sent again.
 */

import { UploadError } from '../errors.ts'
import { cutParts, missingParts, partLength, type Part } from './parts.ts'
import { abortError, type WorkerPool } from './pool.ts'
import { RateMeter } from './rate.ts'
import { resumeKey, type ResumeStore } from './resume.ts'
import { DEFAULT_RETRY, retryDelay, type RetryPolicy } from './retry.ts'
import { UploadApi, type StartRequest, type UploadResult, type UploadSession } from './session.ts'

export type UploadState =
  'starting' | 'sending' | 'waiting' | 'paused' | 'completing' | 'done' | 'failed' | 'cancelled'

/** The state of an upload for display. Bytes never exceed `size`, the fraction never 1. */
export interface UploadSnapshot {
  state: UploadState
  name: string
  size: number
  bytesDone: number
  fraction: number
  partsDone: number
  parts: number
  bytesPerSecond: number | null
  secondsLeft: number | null
  resumed: boolean
  retryAtMs: number | null
  error: UploadError | null
  result: UploadResult | null
}

/** Source of time; tests inject one. */
export interface UploadClock {
  nowMs(): number
  sleep(ms: number, signal: AbortSignal): Promise<void>
}

export interface UploadOptions extends Omit<StartRequest, 'name' | 'size'> {
  pool: WorkerPool
  api?: UploadApi
  /** The dataset's name; the file's name by default. */
  name?: string
  /** Parts sent concurrently. */
  parallel?: number
  retry?: RetryPolicy
  resume?: ResumeStore
  clock?: UploadClock
  onChange?: (snapshot: UploadSnapshot) => void
}

const PROGRESS_EVERY_MS = 100
const COMPLETE_ROUNDS = 3

/** Uploads one file; `finished` is its outcome, `snapshot()` and `onChange` its progress. */
export class Upload {
  private outcome: Promise<UploadResult>
  private state: UploadState = 'starting'
  private session: UploadSession | null = null
  private parts: Part[] = []
  /** Indexes of the parts that the node has, and their bytes in total. */
  private readonly stored = new Set<number>()
  private storedBytes = 0
  /** Sent bytes of each part in transfer. */
  private readonly inTransfer = new Map<number, number>()
  private resumed = false
  /** Requests in progress, and how many of them wait for their next attempt. */
  private calls = 0
  private waits = 0
  private retryAtMs: number | null = null
  private error: UploadError | null = null
  private result: UploadResult | null = null
  private lastChangeMs = -Infinity
  /** Aborted by pause, cancel and failure; each resume makes a new one. */
  private running = new AbortController()
  private readonly meter = new RateMeter()
  private readonly api: UploadApi
  private readonly clock: UploadClock
  private readonly retry: RetryPolicy
  private settle!: { resolve: (result: UploadResult) => void; reject: (reason: unknown) => void }

  constructor(
    readonly file: File,
    private readonly options: UploadOptions,
  ) {
    this.api = options.api ?? new UploadApi()
    this.clock = options.clock ?? SYSTEM_CLOCK
    this.retry = options.retry ?? DEFAULT_RETRY
    this.outcome = this.newOutcome()
    void this.run()
  }

  /**
   * Resolves when the node has the whole file; rejects with UploadError when the upload fails or is
   * cancelled. `resume()` after a failure starts a new promise: read the property again.
   */
  get finished(): Promise<UploadResult> {
    return this.outcome
  }

  /** Stop sending; parts being sent are aborted, stored parts are kept. */
  pause(): void {
    if (!['starting', 'sending', 'waiting'].includes(this.state)) return
    this.enter('paused')
    this.running.abort()
  }

  /** Continue after a pause or a failure. */
  resume(): void {
    if (this.state !== 'paused' && this.state !== 'failed') return
    if (this.state === 'failed') this.outcome = this.newOutcome()
    this.running = new AbortController()
    this.error = null
    void this.run()
  }

  /** Abort the upload and delete its parts on the node. */
  async cancel(): Promise<void> {
    if (['done', 'cancelled', 'completing'].includes(this.state)) return
    this.enter('cancelled')
    this.running.abort()
    this.settle.reject(
      new UploadError('The upload was cancelled.', { code: 'cancelled', status: 400 }),
    )
    this.forget()
    // The node deletes abandoned uploads later, so a failed request can be ignored.
    if (this.session) await this.api.abort(this.session.uploadId).catch(() => undefined)
  }

  snapshot(): UploadSnapshot {
    const sent = [...this.inTransfer.values()].reduce((sum, bytes) => sum + bytes, this.storedBytes)
    const bytesDone = Math.min(sent, this.file.size)
    const sending = this.state === 'sending'
    return {
      state: this.state,
      name: this.options.name ?? this.file.name,
      size: this.file.size,
      bytesDone,
      fraction: this.state === 'done' ? 1 : this.file.size ? bytesDone / this.file.size : 0,
      partsDone: this.stored.size,
      parts: this.parts.length,
      bytesPerSecond: sending ? this.meter.bytesPerSecond() : null,
      secondsLeft: sending ? this.meter.secondsLeft(this.file.size - bytesDone) : null,
      resumed: this.resumed,
      retryAtMs: this.retryAtMs,
      error: this.error,
      result: this.result,
    }
  }

  private async run(): Promise<void> {
    const { signal } = this.running
    try {
      this.enter(this.session ? 'sending' : 'starting')
      this.session ??= await this.open(signal)
      this.meter.reset()
      this.result = await this.sendAndComplete(this.session, signal)
      this.enter('done')
      this.forget()
      this.settle.resolve(this.result)
    } catch (error) {
      if (signal.aborted) return // paused or cancelled
      this.running.abort()
      this.error =
        error instanceof UploadError
          ? error
          : new UploadError(String(error), { code: 'internal', status: 400 })
      this.enter('failed')
      this.settle.reject(this.error)
    }
  }

  private newOutcome(): Promise<UploadResult> {
    const outcome = new Promise<UploadResult>(
      (resolve, reject) => (this.settle = { resolve, reject }),
    )
    outcome.catch(() => undefined) // a page that only watches snapshots has no handler
    return outcome
  }

  private async open(signal: AbortSignal): Promise<UploadSession> {
    const { file, options } = this
    const key = resumeKey(file)
    const known = options.resume?.get(key)
    const found = known
      ? await this.persist(() => this.api.find(known, file.size, signal), signal, 'starting')
      : null
    this.resumed = found !== null
    const request: StartRequest = { name: options.name ?? file.name, size: file.size }
    for (const field of ['partBytes', 'mode', 'options'] as const) {
      if (options[field] !== undefined) Object.assign(request, { [field]: options[field] })
    }
    const session =
      found ?? (await this.persist(() => this.api.start(request, signal), signal, 'starting'))
    options.resume?.set(key, session.uploadId)
    this.parts = cutParts(file.size, session.partBytes)
    this.adopt(session.have)
    return session
  }

  private async sendAndComplete(
    session: UploadSession,
    signal: AbortSignal,
  ): Promise<UploadResult> {
    for (let round = 1; ; round += 1) {
      this.enter('sending')
      await this.sendMissing(session, signal)
      this.enter('completing')
      try {
        return await this.persist(
          () => this.api.complete(session.uploadId, signal),
          signal,
          'completing',
        )
      } catch (error) {
        // The node names parts that it lost, for example in a restart: send those again.
        const missing = error instanceof UploadError ? error.details.missing : undefined
        if (!Array.isArray(missing) || round === COMPLETE_ROUNDS) throw error
        this.disown(missing.map(Number))
      }
    }
  }

  private async sendMissing(session: UploadSession, signal: AbortSignal): Promise<void> {
    const queue = missingParts(this.parts, this.stored)
    const lane = async () => {
      for (let part = queue.shift(); part; part = queue.shift())
        await this.sendPart(session, part, signal)
    }
    const lanes = Math.min(this.options.parallel ?? this.options.pool.size, queue.length)
    await Promise.all(Array.from({ length: lanes }, lane))
  }

  private async sendPart(session: UploadSession, part: Part, signal: AbortSignal): Promise<void> {
    const send = async () => {
      try {
        return await this.options.pool.send({
          url: this.api.partUrl(session.uploadId, part.index),
          body: this.file.slice(part.start, part.end),
          headers: this.api.headers,
          signal,
          onSent: (bytes) => this.progress(part, bytes),
        })
      } finally {
        this.inTransfer.delete(part.index)
      }
    }
    await this.persist(send, signal, 'sending')
    this.adopt([part.index])
    this.changed(true)
  }

  /** Retry with backoff; throw errors that are not retryable, or the last one when retries end. */
  private async persist<T>(
    action: () => Promise<T>,
    signal: AbortSignal,
    during: UploadState,
  ): Promise<T> {
    this.calls += 1
    try {
      for (let failures = 1; ; failures += 1) {
        try {
          return await action()
        } catch (error) {
          if (signal.aborted || !(error instanceof UploadError) || !error.retryable) throw error
          const delayMs = retryDelay(failures, this.retry)
          if (delayMs === null) throw error
          await this.waitToRetry(error, delayMs, signal, during)
        }
      }
    } finally {
      this.calls -= 1
    }
  }

  /** Other parts may still be in transfer: the upload is `waiting` only when all parts wait. */
  private async waitToRetry(
    error: UploadError,
    delayMs: number,
    signal: AbortSignal,
    during: UploadState,
  ): Promise<void> {
    this.waits += 1
    if (this.waits === this.calls) {
      this.retryAtMs = this.clock.nowMs() + delayMs
      this.error = error
      this.enter('waiting')
    }
    await this.clock.sleep(delayMs, signal)
    this.waits -= 1
    if (signal.aborted) throw abortError()
    this.error = null
    this.enter(during)
  }

  private progress(part: Part, bytes: number): void {
    this.inTransfer.set(part.index, Math.min(bytes, partLength(part)))
    this.changed(false)
  }

  private adopt(indexes: Iterable<number>): void {
    for (const index of indexes) {
      const part = this.parts[index]
      if (!part || this.stored.has(index)) continue
      this.stored.add(index)
      this.storedBytes += partLength(part)
    }
  }

  private disown(indexes: Iterable<number>): void {
    for (const index of indexes) {
      const part = this.parts[index]
      if (part && this.stored.delete(index)) this.storedBytes -= partLength(part)
    }
  }

  private forget(): void {
    this.options.resume?.remove(resumeKey(this.file))
  }

  private enter(state: UploadState): void {
    this.state = state
    this.retryAtMs = state === 'waiting' ? this.retryAtMs : null
    if (state === 'paused' || state === 'waiting') this.meter.reset()
    this.changed(true)
  }

  private changed(now: boolean): void {
    const nowMs = this.clock.nowMs()
    if (!now && nowMs - this.lastChangeMs < PROGRESS_EVERY_MS) return
    this.lastChangeMs = nowMs
    const snapshot = this.snapshot()
    if (this.state === 'sending') this.meter.record(snapshot.bytesDone, nowMs)
    this.options.onChange?.(this.snapshot())
  }
}

const SYSTEM_CLOCK: UploadClock = {
  nowMs: () => performance.timeOrigin + performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true })
    }),
}
