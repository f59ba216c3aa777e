/**
 * The upload of one file:
 *
 *   starting -> sending <-> paused | waiting -> completing -> done
 *                  any of them -> failed (resume() retries) | cancelled
 *
 * Parts are sent by a shared pool of workers; parts that the node has stored are not sent again.
 */

import { UploadError } from '../errors.ts'
import { PLATFORM_CONNECTIVITY, type Connectivity } from './connectivity.ts'
import { cutParts, missingParts, partLength, type Part } from './parts.ts'
import { abortError, type WorkerPool } from './pool.ts'
import { RateMeter } from './rate.ts'
import {
  DEFAULT_RETRY,
  Retries,
  SYSTEM_CLOCK,
  type RetryPolicy,
  type UploadClock,
} from './retry.ts'
import { UploadApi, type StartRequest, type UploadResult, type UploadSession } from './session.ts'

export type UploadState =
  'starting' | 'sending' | 'waiting' | 'paused' | 'completing' | 'done' | 'failed' | 'cancelled'

/** The state of an upload for display. Bytes never exceed `size`, the fraction never 1; neither falls. */
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
  /** Whether it began with parts that the node had of an earlier visit. */
  resumed: boolean
  /** Whether it can go on after a reload. */
  resumable: boolean
  /** When a waiting upload tries again; null while it waits for a network. */
  retryAtMs: number | null
  error: UploadError | null
  result: UploadResult | null
}

/** What is stored of an upload beyond the page. None of these fails; see `resumable`. */
export interface UploadMemory {
  readonly resumable: boolean
  /** The unfinished upload of this file, and whether the node was asked to complete it. */
  find(): Promise<{ uploadId: string; completing: boolean } | null>
  opened(session: UploadSession): Promise<void>
  /** The node will be asked to complete it, or has refused to. */
  completing(started: boolean): Promise<void>
  /** Done, cancelled, or unknown to the node. */
  ended(): Promise<void>
}

export interface UploadOptions extends Omit<StartRequest, 'name' | 'size'> {
  pool: WorkerPool
  api?: UploadApi
  /** The dataset's name; the file's name by default. */
  name?: string
  /** Parts sent concurrently. */
  parallel?: number
  retry?: RetryPolicy
  memory?: UploadMemory
  clock?: UploadClock
  connectivity?: Connectivity
  onChange?: (snapshot: UploadSnapshot) => void
}

const PROGRESS_EVERY_MS = 100
/** How often the rate is measured while nothing arrives: a stall must show. */
const RATE_EVERY_MS = 1_000
const COMPLETE_ROUNDS = 3
const FRACTION_BEFORE_STORED = 0.999

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
  /** The most bytes that were shown: a part that fails in transfer must not make progress fall. */
  private shownBytes = 0
  private resumed = false
  private retryAtMs: number | null = null
  private error: UploadError | null = null
  private result: UploadResult | null = null
  private lastChangeMs = -Infinity
  /** Aborted by pause, cancel and failure; each resume makes a new one. */
  private running = new AbortController()
  private readonly meter = new RateMeter()
  private readonly api: UploadApi
  private readonly clock: UploadClock
  private readonly retries: Retries
  private settle!: { resolve: (result: UploadResult) => void; reject: (reason: unknown) => void }

  constructor(
    readonly file: File,
    private readonly options: UploadOptions,
  ) {
    this.api = options.api ?? new UploadApi()
    this.clock = options.clock ?? SYSTEM_CLOCK
    this.retries = new Retries(
      options.retry ?? DEFAULT_RETRY,
      this.clock,
      options.connectivity ?? PLATFORM_CONNECTIVITY,
    )
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
    await this.options.memory?.ended()
    // The node deletes abandoned uploads later, so a failed request can be ignored.
    if (this.session) await this.api.abort(this.session.uploadId).catch(() => undefined)
  }

  snapshot(): UploadSnapshot {
    const sent = [...this.inTransfer.values()].reduce((sum, bytes) => sum + bytes, this.storedBytes)
    const { size } = this.file
    const bytesDone = Math.max(this.shownBytes, Math.min(sent, size))
    this.shownBytes = bytesDone
    const sending = this.state === 'sending'
    // Sent is not stored: 1 means that the node has every byte.
    const fractionMax = this.storedBytes === size ? 1 : FRACTION_BEFORE_STORED
    return {
      state: this.state,
      name: this.options.name ?? this.file.name,
      size,
      bytesDone,
      fraction: this.state === 'done' ? 1 : size ? Math.min(bytesDone / size, fractionMax) : 0,
      partsDone: this.stored.size,
      parts: this.parts.length,
      bytesPerSecond: sending ? this.meter.bytesPerSecond() : null,
      secondsLeft: sending ? this.meter.secondsLeft(size - bytesDone) : null,
      resumed: this.resumed,
      resumable: this.options.memory?.resumable ?? false,
      retryAtMs: this.retryAtMs,
      error: this.error,
      result: this.result,
    }
  }

  private async run(): Promise<void> {
    const { signal } = this.running
    const ticking = setInterval(() => this.changed(false), RATE_EVERY_MS)
    try {
      this.enter(this.session ? 'sending' : 'starting')
      this.session ??= await this.open(signal)
      this.meter.reset()
      this.result = await this.sendAndComplete(this.session, signal)
      await this.options.memory?.ended()
      this.enter('done')
      this.settle.resolve(this.result)
    } catch (error) {
      if (signal.aborted) return // paused or cancelled
      this.running.abort()
      this.error =
        error instanceof UploadError
          ? error
          : new UploadError(String(error), { code: 'internal', status: 400 })
      // Without the session `resume()` begins anew.
      if (GONE.has(this.error.code)) await this.abandon()
      this.enter('failed')
      this.settle.reject(this.error)
    } finally {
      clearInterval(ticking)
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
    const known = (await options.memory?.find()) ?? null
    const found = known
      ? await this.persist(
          () => this.api.find(known.uploadId, file.size, signal),
          signal,
          'starting',
        )
      : null
    if (known?.completing && !found) throw ended()
    this.resumed = found !== null
    const request: StartRequest = { name: options.name ?? file.name, size: file.size }
    for (const field of ['partBytes', 'mode', 'options'] as const) {
      if (options[field] !== undefined) Object.assign(request, { [field]: options[field] })
    }
    const session =
      found ?? (await this.persist(() => this.api.start(request, signal), signal, 'starting'))
    await options.memory?.opened(session)
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
      if (signal.aborted) throw abortError()
      this.enter('completing')
      await this.options.memory?.completing(true)
      try {
        return await this.persist(
          () => this.api.complete(session.uploadId, signal),
          signal,
          'completing',
        )
      } catch (error) {
        if (!(error instanceof UploadError)) throw error
        if (error.status === 404) throw ended()
        if (error.status !== 0) await this.options.memory?.completing(false)
        // The node names parts that it lost, for example in a restart: send those again.
        const { missing } = error.details
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
    await this.persist(send, signal, 'sending').catch((error: unknown) => {
      throw error instanceof UploadError && error.status === 404 ? gone() : error
    })
    this.adopt([part.index])
    this.changed(true)
  }

  private persist<T>(
    action: () => Promise<T>,
    signal: AbortSignal,
    during: UploadState,
  ): Promise<T> {
    const listener = {
      onWait: (error: UploadError, retryAtMs: number | null) => {
        this.retryAtMs = retryAtMs
        this.error = error
        this.enter('waiting')
      },
      onRetry: () => {
        this.error = null
        this.enter(during)
      },
    }
    // A wrong address must show before a day has passed.
    return this.retries.run(action, signal, listener, during !== 'starting')
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

  private async abandon(): Promise<void> {
    this.session = null
    this.stored.clear()
    this.storedBytes = this.shownBytes = 0
    await this.options.memory?.ended()
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

/** Codes of uploads that the node does not have any more. */
const GONE = new Set(['upload-gone', 'upload-ended'])

function gone(): UploadError {
  return new UploadError('The node does not have this upload any more.', {
    code: 'upload-gone',
    status: 404,
    hint: 'It was cancelled, or got no part for too long. Try again to send the whole file.',
  })
}

function ended(): UploadError {
  return new UploadError(
    'The node does not have this upload any more: it was completed, or removed.',
    {
      code: 'upload-ended',
      status: 404,
      hint: 'Look whether the rows are in the table before you send the file again.',
    },
  )
}
