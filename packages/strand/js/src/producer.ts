/**
 * The producer's half of the protocol: room, claims, publication. The steps and their order are those
 * of the C core, so that both write the same bytes.
 */

import {
  PayloadTooLargeError,
  RingExhaustedError,
  StrandAbortError,
  StrandCorruptError,
} from './errors.js'
import type { StrandMap } from './header.js'
import {
  AT,
  ATTACHED,
  CONSUMER_COUNT,
  ENTRY,
  entryAt,
  INITIALIZING,
  LEFT,
  requireCounter,
  type RingWords,
  STREAMING,
  VACANT,
} from './words.js'

const V5_RECORDS_MAX = 0x7fffffff
const SKIP_MARK_BYTES = 6
const IMPOSSIBLE_POLLS = 10_000

/** Returned by a claim without room: wait until `threshold` records are acknowledged. */
export const NO_ROOM = -1

/** The producer's counters. `heapEnd` of a slot is the heap counter after its record. */
export class Producer {
  claimed = 0
  /** Records filled. */
  write = 0
  /** Records published. */
  commit = 0
  heapWrite = 0
  heapSealed = 0
  /** The acknowledged records that the last failed claim needs. */
  threshold = 0
  discards = false
  streaming = false
  /** The whole ring. */
  readonly bytes: Uint8Array
  readonly view: DataView
  private recordBytes = 0
  private read = 0
  private joinPosition = 0
  private stalls = 0
  private rings = 0
  private readonly heapEnd: Float64Array

  constructor(
    readonly words: RingWords,
    readonly map: StrandMap,
  ) {
    this.heapEnd = new Float64Array(map.indexCapacity)
    this.bytes = new Uint8Array(words.buffer)
    this.view = new DataView(words.buffer)
    this.open()
  }

  /** Start from the ring's counters, of a new ring or of one with an earlier producer. */
  open(): void {
    const { words, heapEnd } = this
    const commit = words.committed()
    const heap = words.load(AT.heapCommit)
    requireCounter('the commit counter', commit, Number.MAX_SAFE_INTEGER)
    requireCounter('the heap counter', heap, Number.MAX_SAFE_INTEGER)
    this.claimed = this.write = this.commit = commit
    this.heapWrite = this.heapSealed = heap
    this.recordBytes = this.threshold = this.stalls = this.rings = 0
    this.streaming = false
    this.joinPosition = words.load(AT.joinPosition)
    const lowWaterMark = words.hasReader()
      ? Math.min(this.joinPosition, words.lowWaterMark())
      : this.joinPosition
    this.read = Math.max(Math.min(lowWaterMark, commit), commit - this.map.indexCapacity, 0)
    // The offsets of unread payloads are not known here: the whole heap counts as used.
    heapEnd.fill(Math.max(0, heap - this.map.heapCapacity))
    heapEnd[this.newest()] = heap
  }

  begin(): void {
    this.streaming = true
    this.words.setStatus(STREAMING)
  }

  /** Free slots; rereads the consumers' positions when that is fewer than `wanted`. */
  room(wanted: number): number {
    if (this.words.aborted()) throw stopped()
    const { indexCapacity } = this.map
    if (indexCapacity - (this.claimed - this.read) < wanted) this.refresh()
    const room = indexCapacity - (this.claimed - this.read)
    if (this.words.version === 6) return room
    if (this.claimed >= V5_RECORDS_MAX) throw new RingExhaustedError()
    return Math.min(room, V5_RECORDS_MAX - this.claimed)
  }

  /** Claim `count` consecutive zeroed slots; returns the first sequence number, or NO_ROOM. */
  claim(count: number): number {
    const room = this.room(count)
    if (room < count) {
      if (this.words.version === 5 && this.claimed + count > V5_RECORDS_MAX)
        throw new RingExhaustedError()
      return this.stall(this.claimed + count - this.map.indexCapacity)
    }
    if (!this.streaming) this.begin()
    const seq = this.claimed
    this.claimed += count
    for (let at = seq; at < this.claimed; at += 1) {
      const start = this.slotOffset(at)
      this.bytes.fill(0, start, start + this.map.recordStride)
    }
    return seq
  }

  /** Claim contiguous heap bytes for the records under construction; their offset, or NO_ROOM. */
  claimHeap(size: number, align: number): number {
    const capacity = this.map.heapCapacity
    if (size === 0) return this.heapWrite
    // One record may use half of the heap, so that it fits even after a skip at the heap's end.
    const needed = this.recordBytes + size + (size < capacity / 2 ? align - 1 : 0)
    if (size > capacity / 2 || (this.recordBytes !== 0 && needed > capacity / 2))
      throw new PayloadTooLargeError(capacity / 2, needed)
    const start = this.place(size, align)
    const end = start + size
    if (end - this.heapSealed > capacity)
      throw new PayloadTooLargeError(capacity, end - this.heapSealed)
    if (this.lacksSlot() || end - this.heapTail(this.read) > capacity) {
      if (this.words.aborted()) throw stopped()
      this.refresh()
      if (this.lacksSlot()) return this.stall(this.claimed + 1 - this.map.indexCapacity)
      if (end - this.heapTail(this.read) > capacity) return this.stall(this.readsForHeap(end))
    }
    if (Math.floor(start / capacity) !== Math.floor(this.heapWrite / capacity)) this.markSkip()
    this.heapWrite = end
    this.recordBytes = needed
    return start
  }

  /** Mark the next `count` claimed records as filled: the next `publish` includes them. */
  seal(count: number): void {
    if (count === 0) return
    // Which bytes belong to which record is not known: all are kept until the last is acknowledged.
    const before = this.heapTail(this.write)
    for (let seq = this.write; seq < this.write + count; seq += 1)
      this.heapEnd[this.slot(seq)] = before
    this.write += count
    this.heapEnd[this.newest()] = this.heapWrite
    this.heapSealed = this.heapWrite
    this.recordBytes = 0
  }

  /** Seal slots and heap bytes written by the caller, which tracks their use itself. */
  sealAs(write: number, heap: number): void {
    this.claimed = this.write = write
    this.heapWrite = this.heapSealed = heap
  }

  /** Drop the records under construction and their heap bytes. */
  abandon(): void {
    this.claimed = this.write
    this.heapWrite = this.heapSealed
    this.recordBytes = 0
  }

  commitHeap(): void {
    const { words } = this
    const heap = (this.heapSealed = this.heapWrite)
    this.heapEnd[this.newest()] = heap // released with the newest record
    words.store(AT.heapWrite, heap)
    words.store(AT.heapCommit, heap)
    if (words.version === 6) return
    words.store32(AT.v5HeapWrite, heap)
    words.store32(AT.v5HeapCommit, heap)
  }

  /** Publish every sealed record and wake the consumers whose threshold was crossed. */
  publish(): void {
    const { words } = this
    const before = this.commit
    const after = this.write
    if (before === after) return
    this.commit = after
    words.store(AT.heapWrite, this.heapSealed)
    words.store(AT.write, after)
    // Heap before records: a consumer that sees the count also sees slots, payloads and heap.
    words.store(AT.heapCommit, this.heapSealed)
    words.store(AT.commit, after)
    if (words.version === 5) {
      words.store32(AT.v5HeapWrite, this.heapSealed)
      words.store32(AT.v5HeapCommit, this.heapSealed)
      words.store32(AT.v5Write, after)
      words.store32(AT.v5Commit, after)
      Atomics.notify(words.i32, AT.v5Commit >>> 2)
    }
    // The sleeper stores its threshold, then loads the count: one side sees the other's store.
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      const wanted = words.load(entryAt(index, ENTRY.threshold))
      if (before < wanted && wanted <= after) {
        words.ringBell(entryAt(index, ENTRY.bell))
        words.store(AT.rings, (this.rings += 1))
      }
    }
  }

  /** Whether `threshold` records are acknowledged, or their consumers have left. */
  hasRoom(threshold: number): boolean {
    this.refresh()
    return this.read >= threshold
  }

  /** The heap counter after record `count - 1`: once `count` are acknowledged, it is free below. */
  heapTail(count: number): number {
    return this.heapEnd[this.slot(count - 1 + this.map.indexCapacity)]!
  }

  /** Records that may be overwritten: the cached low-water mark. */
  get released(): number {
    return this.read
  }

  /** Begin the next generation in the same ring; no consumer may have unread records. */
  reset(): void {
    const { words } = this
    for (const at of [
      AT.write,
      AT.commit,
      AT.heapWrite,
      AT.heapCommit,
      AT.threshold,
      AT.joinPosition,
    ])
      words.store(at, 0)
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      words.store(entryAt(index, ENTRY.read), 0)
      words.store(entryAt(index, ENTRY.threshold), 0)
      // Exchange: a consumer may be attaching to the entry now.
      Atomics.compareExchange(words.i32, entryAt(index, ENTRY.state) >>> 2, LEFT, VACANT)
    }
    if (words.version === 5)
      for (let at: number = AT.v5Write; at <= AT.v5Abort; at += 4) words.store32(at, 0)
    words.store32(AT.abort, 0)
    words.store32(AT.status, INITIALIZING)
    // Last: a consumer that sees the new generation also sees the zeroed counters.
    words.store32(AT.generation, words.load32(AT.generation) + 1)
    // A consumer that joined meanwhile may have stored a position of the old stream. It loads the
    // generation after that store, and this loop runs after the generation changed.
    for (let index = 0; index < CONSUMER_COUNT; index += 1)
      if (words.load32(entryAt(index, ENTRY.state)) === ATTACHED)
        words.store(entryAt(index, ENTRY.read), 0)
    words.ringEveryBell()
    this.open()
  }

  slotOffset(seq: number): number {
    return this.map.indexStart + this.slot(seq) * this.map.recordStride
  }

  /** Byte offset in the ring of a monotonic heap offset. */
  heapOffset(offset: number): number {
    return this.map.heapStart + (offset % this.map.heapCapacity)
  }

  /** Whether there is no slot for the record of a payload: none claimed, and every one in use. */
  private lacksSlot(): boolean {
    return this.claimed === this.write && this.claimed - this.read === this.map.indexCapacity
  }

  /** The slot of the newest sealed record; before the first, the one before it. */
  private newest(): number {
    return this.slot(this.write - 1 + this.map.indexCapacity)
  }

  private slot(seq: number): number {
    return seq % this.map.indexCapacity
  }

  /**
   * Advance the cached low-water mark. A joining consumer stores its position and attaches, then
   * loads the join position; the producer stores the join position, then rereads the positions. So
   * either the producer sees the consumer and keeps its records, or the consumer starts there.
   */
  private refresh(): void {
    const { words } = this
    let lowWaterMark = words.lowWaterMark()
    if (this.discards && !words.hasReader()) lowWaterMark = this.commit
    for (let polls = 0; lowWaterMark > this.commit; polls += 1) {
      // A consumer that joined during a reset shows a position of the old stream for a moment.
      if (polls === IMPOSSIBLE_POLLS)
        throw new StrandCorruptError(`${lowWaterMark} of ${this.commit} records are acknowledged`)
      lowWaterMark = words.lowWaterMark()
    }
    if (lowWaterMark <= this.read) return // no progress, or a joining consumer
    if (lowWaterMark > this.joinPosition) {
      this.joinPosition = lowWaterMark
      words.store(AT.joinPosition, lowWaterMark)
      if (words.hasReader()) lowWaterMark = Math.min(lowWaterMark, words.lowWaterMark())
    }
    this.read = Math.max(this.read, lowWaterMark)
  }

  private stall(threshold: number): typeof NO_ROOM {
    this.words.store(AT.stalls, (this.stalls += 1))
    this.threshold = threshold
    return NO_ROOM
  }

  /** The fewest acknowledged records after which the heap may grow to `end`; heapEnd never falls. */
  private readsForHeap(end: number): number {
    let low = this.read + 1
    let high = this.write
    while (low < high) {
      const middle = low + Math.floor((high - low) / 2)
      if (end - this.heapTail(middle) <= this.map.heapCapacity) high = middle
      else low = middle + 1
    }
    return low
  }

  /** The offset at which a payload would start: aligned, and not across the heap's end. */
  private place(size: number, align: number): number {
    const capacity = this.map.heapCapacity
    const start = Math.ceil(this.heapWrite / align) * align
    const physical = start % capacity
    return physical + size > capacity ? start + capacity - physical : start
  }

  /** Mark the rest of the heap before its end as unused, for readers that walk it in order. */
  private markSkip(): void {
    const physical = this.heapWrite % this.map.heapCapacity
    const left = this.map.heapCapacity - physical
    if (physical === 0 || left < SKIP_MARK_BYTES) return
    const at = this.map.heapStart + physical
    this.view.setUint16(at, 0xffff, true)
    this.view.setUint32(at + 2, left, true)
  }
}

function stopped(): StrandAbortError {
  return new StrandAbortError('the consumer asked the producer to stop')
}
