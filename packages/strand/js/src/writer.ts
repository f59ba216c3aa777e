/** The producing end of a ring. */

import { RecordEncoder, type StrandRecord } from './encoder.js'
import {
  ConsumerGoneError,
  StrandAbortError,
  StrandClosedError,
  StrandConflictError,
  StrandTimeoutError,
  WouldBlockError,
} from './errors.js'
import { readStrandHeader, type StrandMap } from './header.js'
import { requireKnownOptions } from './options.js'
import { requireExtension } from './plain.js'
import { NO_ROOM, Producer } from './producer.js'
import { canBlock, NAP_MS, sleepHere, sleepUntilAny, type Bell } from './waiting.js'
import {
  AT,
  ATTACHED,
  CONSUMER_COUNT,
  ENTRY,
  entryAt,
  EOS,
  ERROR,
  LEFT,
  RingWords,
} from './words.js'

/** What a producer does when the ring is full and every consumer has left. */
export type WhenUnread = 'raise' | 'wait' | 'discard'

export interface StrandWriterOptions {
  /** 'raise' (the default) throws ConsumerGoneError, 'discard' overwrites unread records. */
  whenUnread?: WhenUnread
  /** The strings that `utf8_ref` fields refer to; by default those of the ring's metadata. */
  categories?: readonly string[]
  /** How long a write waits for room while no record is acknowledged; default: Infinity. */
  timeoutMs?: number
}

/** The bells to sleep on until there may be room, and for how long. */
interface Nap {
  readonly bells: readonly Bell[]
  readonly ms: number
}

/** A slot to be filled by hand: its byte offset in the ring, and its record's number. */
export interface ClaimedSlot {
  readonly slotOffset: number
  readonly seq: number
}

/** Heap bytes to be filled by hand: their byte offset, and their offset for a heap pointer. */
export interface ClaimedHeap {
  readonly physOffset: number
  readonly monoOffset: number
}

/**
 * Writes records into a ring, and waits when there is no room. One ring has one writer, which blocks
 * its thread: run it in a Worker, or use the methods whose names end in Async.
 */
export class StrandWriter {
  readonly map: StrandMap
  private readonly words: RingWords
  private readonly producer: Producer
  private readonly encoder: RecordEncoder
  private readonly whenUnread: WhenUnread
  private readonly timeoutMs: number
  private ended = false

  /** Attach as the ring's producer; throws StrandHeaderError, or StrandClosedError after its end. */
  constructor(buffer: SharedArrayBuffer, options: StrandWriterOptions = {}) {
    requireKnownOptions('a StrandWriter', options, ['whenUnread', 'categories', 'timeoutMs'])
    this.map = readStrandHeader(buffer)
    requireExtension(buffer, this.map)
    this.words = new RingWords(buffer, this.map.version)
    if (this.words.status() >= EOS)
      throw new StrandClosedError("the ring's stream has ended", 'its writer may reset() it')
    this.whenUnread = options.whenUnread ?? 'raise'
    this.timeoutMs = options.timeoutMs ?? Infinity
    if (!(this.timeoutMs >= 0))
      throw new RangeError(`timeoutMs is 0 or more milliseconds, not ${this.timeoutMs}`)
    this.producer = new Producer(this.words, this.map)
    this.producer.discards = this.whenUnread === 'discard'
    this.encoder = new RecordEncoder(this.map, options.categories ?? internTable(this.map))
  }

  /** Records published so far. */
  get committedCount(): number {
    return this.producer.commit
  }

  /** Set the status to streaming; the first write does it as well. */
  begin(): void {
    this.requireOpen()
    if (!this.producer.streaming) this.producer.begin()
  }

  /** Publish one record. */
  write(record: StrandRecord): void {
    this.writeRecordBatch([record])
  }

  /**
   * Publish records and return how many. They become visible together, or in the pieces that the
   * ring has room for; the thread sleeps in between. When a record does not fit the schema (TypeError,
   * RangeError, PayloadTooLargeError), those before it were written.
   */
  writeRecordBatch(records: Iterable<StrandRecord>): number {
    this.requireFree()
    let count = 0
    try {
      for (const record of records) {
        this.encoder.prepare(record)
        while (!this.encoder.write(this.producer)) this.waitHere()
        count += 1
      }
    } finally {
      this.producer.publish()
    }
    return count
  }

  /** The same on a thread that must not block: between the pieces, other events run. */
  async writeRecordBatchAsync(
    records: Iterable<StrandRecord> | AsyncIterable<StrandRecord>,
  ): Promise<number> {
    this.requireFree()
    let count = 0
    try {
      for await (const record of records) {
        this.encoder.prepare(record)
        while (!this.encoder.write(this.producer)) {
          await this.wait()
          this.encoder.prepare(record) // its payloads may be other bytes by now
        }
        count += 1
      }
    } finally {
      this.producer.publish()
    }
    return count
  }

  /** Resolve once `count` slots can be claimed without waiting. */
  async waitForRoom(count = 1): Promise<void> {
    this.requireOpen()
    this.checkCount(count)
    while (this.producer.room(count) < count) {
      this.producer.threshold = this.producer.claimed + count - this.map.indexCapacity
      await this.wait()
    }
  }

  /** Claim the next slot, zeroed; fill it at `slotOffset + byteOffset`, then `commitSlot(seq)`. */
  claimSlot(): ClaimedSlot {
    return this.claimSlots(1)[0]!
  }

  /** Claim `count` successive slots at once. */
  claimSlots(count: number): readonly ClaimedSlot[] {
    this.requireOpen()
    this.checkCount(count)
    let first = this.producer.claim(count)
    while (first === NO_ROOM) {
      this.waitHere()
      first = this.producer.claim(count)
    }
    return Array.from({ length: count }, (_, at) => ({
      slotOffset: this.producer.slotOffset(first + at),
      seq: first + at,
    }))
  }

  /** Publish a claimed slot; RangeError when another one comes first. */
  commitSlot(seq: number): void {
    this.commitSlots(seq, 1)
  }

  /** Publish `count` claimed slots from `fromSeq` on; RangeError out of order. */
  commitSlots(fromSeq: number, count: number): void {
    this.requireOpen()
    const { write, claimed } = this.producer
    if (fromSeq !== write || !Number.isInteger(count) || count < 1 || write + count > claimed)
      throw new RangeError(
        `records ${fromSeq} to ${fromSeq + count - 1} cannot be committed now: ` +
          (write < claimed ? `${write} to ${claimed - 1} are claimed` : 'none are claimed'),
      )
    this.producer.seal(count)
    this.producer.publish()
  }

  /** Claim contiguous heap bytes for the claimed slots. */
  claimHeapBytes(byteLength: number, align = 1): ClaimedHeap {
    this.requireOpen()
    if (!Number.isInteger(byteLength) || byteLength < 0)
      throw new RangeError(`${byteLength} is no number of bytes`)
    let offset = this.producer.claimHeap(byteLength, align)
    while (offset === NO_ROOM) {
      this.waitHere()
      offset = this.producer.claimHeap(byteLength, align)
    }
    return { physOffset: this.producer.heapOffset(offset), monoOffset: offset }
  }

  /** Publish the heap bytes claimed so far, ahead of their records. */
  commitHeap(): void {
    this.requireOpen()
    this.producer.commitHeap()
  }

  /** Drop every claimed slot that was not committed, and its heap bytes. */
  abandon(): void {
    this.producer.abandon()
  }

  /** End the stream; consumers read the remaining records and then its end. */
  finalize(): void {
    this.end(EOS)
  }

  /** End the stream with an error that carries `message` (316 bytes of it) to consumers. */
  abort(message = ''): void {
    this.requireOpen()
    this.words.writeReason(message)
    this.end(ERROR)
  }

  /**
   * Begin a new stream in this ring, after the end of the previous one; records restart at 0.
   * Throws StrandConflictError while an attached consumer has unacknowledged records.
   */
  reset(): void {
    if (!this.ended) throw new StrandConflictError('finalize or abort the stream before the next')
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      if (this.words.load32(entryAt(index, ENTRY.state)) !== ATTACHED) continue
      const unread = this.producer.commit - this.words.load(entryAt(index, ENTRY.read))
      if (unread > 0)
        throw new StrandConflictError(
          `consumer ${index} has ${unread} unacknowledged records of the ended stream`,
          'acknowledge them there, or release that consumer, then reset again',
        )
    }
    this.words.writeReason('')
    this.producer.reset()
    this.ended = false
  }

  private end(status: number): void {
    this.requireOpen()
    this.producer.abandon()
    this.producer.publish()
    this.words.setStatus(status)
    this.ended = true
  }

  private requireOpen(): void {
    if (this.ended) throw new StrandClosedError('the stream has ended', 'reset() begins the next')
  }

  private requireFree(): void {
    this.requireOpen()
    if (this.producer.claimed !== this.producer.write)
      throw new StrandConflictError('claimed slots are open: commit or abandon them first')
  }

  private checkCount(count: number): void {
    if (!Number.isInteger(count) || count < 1 || count > this.map.indexCapacity)
      throw new RangeError(`this ring has ${this.map.indexCapacity} slots, not ${count}`)
  }

  /** Publish the filled records, then sleep until the last failed claim has room. */
  private waitHere(): void {
    for (const { bells, ms } of this.watch()) {
      if (!canBlock()) throw new WouldBlockError()
      // A thread can sleep on one word only. Plain readers change theirs with each acknowledgement.
      const { at, seen } = bells.at(-1)!
      sleepHere(this.words.i32, at, seen, ms)
    }
  }

  private async wait(): Promise<void> {
    for (const { bells, ms } of this.watch()) await sleepUntilAny(this.words.i32, bells, ms)
  }

  /** Yield the words to sleep on until there is room; throws when there will be none. */
  private *watch(): Generator<Nap, void> {
    const { producer, words } = this
    const { threshold } = producer
    const until = performance.now() + this.timeoutMs
    producer.publish()
    for (;;) {
      // Store the threshold, then load the counters; a consumer does it in the opposite order.
      words.store(AT.threshold, threshold)
      const bells: Bell[] = [{ at: AT.bell, seen: words.load32(AT.bell) }]
      if (words.hasPlainReader()) bells.push({ at: AT.v5Read, seen: words.load32(AT.v5Read) })
      if (producer.hasRoom(threshold)) return
      if (words.aborted()) throw new StrandAbortError('the consumer asked the producer to stop')
      if (this.everyoneLeft()) {
        if (producer.hasRoom(threshold)) return // acknowledged before they left
        throw new ConsumerGoneError()
      }
      const left = until - performance.now()
      if (left <= 0) throw new StrandTimeoutError(this.timeoutMs)
      yield { bells, ms: Math.min(left, NAP_MS) }
    }
  }

  /** Whether to throw because all consumers have left. */
  private everyoneLeft(): boolean {
    if (this.whenUnread !== 'raise' || this.words.hasReader()) return false
    for (let index = 0; index < CONSUMER_COUNT; index += 1)
      if (this.words.load32(entryAt(index, ENTRY.state)) === LEFT) return true
    return false
  }
}

/** The strings in a ring's metadata that `utf8_ref` handles refer to. */
export function internTable(map: StrandMap): readonly string[] {
  const table = map.metadata['intern']
  return Array.isArray(table) ? table.map(String) : []
}
