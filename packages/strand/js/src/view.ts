/** The consuming end of a ring. */

import { Consumer, type Start } from './consumer.js'
import { RecordCursor, type InternTable } from './cursor.js'
import {
  LeaseHeldError,
  StrandAbortError,
  StrandClosedError,
  StrandConflictError,
  StreamResetError,
  WouldBlockError,
} from './errors.js'
import {
  filterRecords,
  findFirst,
  rangesOf,
  type Bitset,
  type Predicate,
  type Range,
} from './filters.js'
import { readStrandHeader, type StrandMap } from './header.js'
import { requireKnownOptions } from './options.js'
import { requireExtension } from './plain.js'
import { canBlock, NAP_MS, sleepHere, sleepUntilAny } from './waiting.js'
import { AT, ENTRY, entryAt, EOS, ERROR, RingWords } from './words.js'
import { internTable } from './writer.js'

/** The state of a stream. */
export type StrandStatus = 'initializing' | 'streaming' | 'eos' | 'error'

const START_OPTIONS = ['start'] as const

const STATUSES: readonly StrandStatus[] = ['initializing', 'streaming', 'eos', 'error']

/** Names a consumer registered with a view. */
export type ConsumerToken = number

export interface StrandViewOptions {
  /** Start at the oldest unacknowledged record (the default), or at the next one published. */
  start?: Start
}

/**
 * Reads records from a ring and acknowledges them. Up to eight consumers read one ring, each every
 * record; the producer keeps the records that the slowest of them has not acknowledged.
 */
export class StrandView {
  readonly map: StrandMap
  private readonly words: RingWords
  private readonly consumer: Consumer
  private readonly intern: InternTable
  private readonly waiters: { wanted: number }[] = []
  /** The view's own consumer; null once it was released or became a token. */
  private own: ConsumerToken | null
  /**
   * True until something is acknowledged without a token. While it is true, the view's own consumer
   * moves with the slowest token, so that it does not hold the producer up.
   */
  private followsTokens = true

  /**
   * Attach as a consumer. `categories` are the strings that `utf8_ref` handles refer to; by
   * default those of the ring's metadata (`intern`). Throws StrandHeaderError, or
   * StrandConflictError when there are eight consumers.
   */
  constructor(
    readonly buffer: SharedArrayBuffer,
    categories?: readonly string[] | null,
    options: StrandViewOptions = {},
  ) {
    requireKnownOptions('a StrandView', options, START_OPTIONS)
    this.map = readStrandHeader(buffer)
    requireExtension(buffer, this.map)
    this.words = new RingWords(buffer, this.map.version)
    this.consumer = new Consumer(this.words, this.map)
    this.intern = { strings: categories ?? internTable(this.map) }
    this.own = this.consumer.join(options.start ?? 'oldest')
  }

  /** A cursor over the records; allocate it once, then seek from record to record. */
  allocateCursor(): RecordCursor {
    return new RecordCursor(this.buffer, this.consumer, this.intern)
  }

  // ---- consumers --------------------------------------------------------------------------------

  /**
   * Register a consumer with a position of its own, and return its token. The view itself counts as
   * one as soon as it acknowledges without a token; until then it moves with the slowest token.
   * StrandConflictError when there are eight consumers.
   */
  registerConsumer(options: StrandViewOptions = {}): ConsumerToken {
    requireKnownOptions('registerConsumer', options, START_OPTIONS)
    const start = options.start ?? 'oldest'
    try {
      return this.consumer.join(start)
    } catch (error) {
      if (!(error instanceof StrandConflictError && this.own !== null && this.followsTokens))
        throw error
      // All eight are in use, but the view's own consumer is not read with: use it as the token.
      const token = this.own
      this.own = null
      if (start === 'next') this.consumer.acknowledge(token, this.committedCount)
      return token
    }
  }

  /** Release a consumer, by default the view's own; wakes a producer that waits for room. */
  releaseConsumer(token?: ConsumerToken): void {
    const entry = this.entryOf(token)
    this.consumer.leave(entry)
    if (entry === this.own) this.own = null
    else this.followTokens()
  }

  /** Release every consumer registered here; the view cannot be used any more. */
  close(): void {
    for (let entry = this.consumer.entry; entry !== undefined; entry = this.consumer.entry)
      this.consumer.leave(entry)
    this.own = null
  }

  /** Acknowledge the records below `upTo`: the producer may overwrite them from now on. */
  acknowledgeRead(upTo: number, token?: ConsumerToken): void {
    const entry = this.entryOf(token)
    this.consumer.acknowledge(entry, upTo)
    if (entry === this.own) this.followsTokens = false
    else this.followTokens()
  }

  /** Records acknowledged so far by the view's own consumer. */
  get acknowledgedCount(): number {
    return this.own === null ? this.windowStart : this.consumer.readOf(this.own)
  }

  // ---- the stream -------------------------------------------------------------------------------

  /** Records published so far; those from `windowStart` up to this count may be read. */
  get committedCount(): number {
    return this.words.committed()
  }

  /** The first record that may still be read here: where the slowest of this view's consumers is. */
  get windowStart(): number {
    return Math.min(this.consumer.lowWaterMark, this.words.committed())
  }

  get status(): StrandStatus {
    return STATUSES[this.words.status()] ?? 'error'
  }

  /** Share of the estimated records that were acknowledged; null without an estimate. */
  get progress(): number | null {
    const expected = this.map.estimatedRecords
    return expected ? Math.min(1, this.acknowledgedCount / expected) : null
  }

  /**
   * Resolve with the count once `minRecords` more than `after` are published. It may be less when
   * the producer has no room for more, and equals `after` at the end of the stream or after
   * `timeoutMs`. Rejects with StrandAbortError once nothing is left of an aborted stream, and with
   * StreamResetError when `after` is of the stream before.
   */
  async waitForCommit(after: number, timeoutMs = Infinity, minRecords = 1): Promise<number> {
    const until = performance.now() + timeoutMs
    const waiter = { wanted: this.wantedOf(after, minRecords) }
    this.waiters.push(waiter)
    try {
      for (;;) {
        const count = this.countIfIdle(after, waiter.wanted)
        if (count !== null) return count
        const entry = this.bellEntry()
        const seen = this.consumer.arm(entry, Math.min(...this.waiters.map((each) => each.wanted)))
        const commit = this.words.plainCommit()
        const again = this.countIfIdle(after, waiter.wanted)
        if (again !== null) return again
        const left = until - performance.now()
        if (left <= 0) return this.committedCount
        this.consumer.countSleep(entry)
        const bells = [{ at: entryAt(entry, ENTRY.bell), seen }]
        if (commit !== null) bells.push({ at: AT.v5Commit, seen: commit })
        await sleepUntilAny(this.words.i32, bells, Math.min(left, NAP_MS))
        waiter.wanted = this.wantedOf(after, minRecords)
      }
    } finally {
      this.waiters.splice(this.waiters.indexOf(waiter), 1)
    }
  }

  /**
   * The same for a thread that may block; WouldBlockError on a page. LeaseHeldError when the producer
   * waits for this view, which can acknowledge nothing while it sleeps.
   */
  waitForCommitSync(after: number, timeoutMs = Infinity, minRecords = 1): number {
    const until = performance.now() + timeoutMs
    for (;;) {
      const wanted = this.wantedOf(after, minRecords)
      const entry = this.bellEntry()
      const seen = this.consumer.arm(entry, wanted)
      const commit = this.words.plainCommit()
      const count = this.countIfIdle(after, wanted)
      if (count !== null) return count
      const left = until - performance.now()
      if (left <= 0) return this.committedCount
      this.refuseEndlessWait(after)
      if (!canBlock()) throw new WouldBlockError()
      this.consumer.countSleep(entry)
      const nap = Math.min(left, NAP_MS)
      if (commit === null) sleepHere(this.words.i32, entryAt(entry, ENTRY.bell), seen, nap)
      else sleepHere(this.words.i32, AT.v5Commit, commit, nap)
    }
  }

  /** Ask the producer to stop; its next claim throws StrandAbortError. */
  signalAbort(): void {
    this.words.signalAbort()
  }

  /** Replace the strings that `utf8_ref` handles refer to; every cursor sees the change. */
  updateInternTable(table: readonly string[]): void {
    this.intern.strings = [...table]
  }

  // ---- searching --------------------------------------------------------------------------------

  /**
   * The first readable record whose sorted `field` is not before `value`, by bisection; the
   * committed count when there is none. TypeError when the field is not declared as sorted.
   */
  findFirst(field: string, value: number | bigint | string): number {
    return findFirst(
      this.allocateCursor(),
      this.map,
      field,
      value,
      this.windowStart,
      this.committedCount,
    )
  }

  /** Which records match a predicate (`between`, `eq`, `oneOf`) on one field. */
  getFilterBitset(
    field: string,
    predicate: Predicate,
    start = this.windowStart,
    stop = this.committedCount,
  ): Bitset {
    if (start < this.windowStart || stop > this.committedCount || start > stop)
      throw new RangeError(
        `records ${start} to ${stop} are not all readable: ` +
          `${this.windowStart} to ${this.committedCount} are`,
      )
    return filterRecords(this.allocateCursor(), this.map, field, predicate, start, stop)
  }

  /** The least and greatest value of numeric fields among the records of a bitset. */
  constrainedRanges(bitset: Bitset, fields?: readonly string[]): Record<string, Range> {
    return rangesOf(this.allocateCursor(), this.map, bitset, fields)
  }

  // ---- how it waits -----------------------------------------------------------------------------

  /** Move the view's own consumer to the slowest token, unless the own one is used. */
  private followTokens(): void {
    const { consumer, own } = this
    if (own === null || !this.followsTokens) return
    const slowest = consumer.slowestExcept(own)
    if (slowest < Infinity && slowest > consumer.readOf(own)) consumer.acknowledge(own, slowest)
  }

  private refuseEndlessWait(after: number): void {
    const { consumer, words } = this
    const unread = after - consumer.lowWaterMark
    if (unread <= 0 || words.load(AT.threshold) <= consumer.lowWaterMark) return
    const own = this.own !== null && consumer.readOf(this.own) === consumer.lowWaterMark
    throw new LeaseHeldError(unread, consumer.lowWaterMark, own && !this.followsTokens)
  }

  private wantedOf(after: number, minRecords: number): number {
    const most = this.consumer.lowWaterMark + this.map.indexCapacity
    return Math.max(after + 1, Math.min(after + minRecords, most))
  }

  /** The count when no more will come for now, null to wait on; throws if the stream failed. */
  private countIfIdle(after: number, wanted: number): number | null {
    const { words, consumer } = this
    if (consumer.hasCommitted(wanted)) return words.committed()
    if (consumer.followReset() && after > 0) throw new StreamResetError(after)
    const status = words.status()
    const aborted = status < EOS && words.aborted()
    const committed = words.committed() // read after the status: once ended, the count is final
    if (
      committed > after &&
      (aborted || status >= EOS || words.load(AT.threshold) > consumer.lowWaterMark)
    )
      return committed
    if (status === ERROR) throw new StrandAbortError(words.readReason())
    if (aborted) throw new StrandAbortError('the consumer asked the producer to stop')
    return status >= EOS ? committed : null
  }

  private bellEntry(): number {
    const entry = this.consumer.entry
    if (entry === undefined) throw new StrandClosedError('every consumer of this view was released')
    return entry
  }

  private entryOf(token: ConsumerToken | undefined): number {
    const entry = token ?? this.own
    if (entry === null)
      throw new StrandClosedError("the view's own consumer was released", 'pass a token')
    if (!this.consumer.holds(entry))
      throw new RangeError(`${entry} is no token of this view: registerConsumer() returns one`)
    return entry
  }
}
