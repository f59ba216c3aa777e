/**
 * The producer's half of the protocol: room, claims, publication. The same steps in the same order
 * as the C core, so that both leave the same bytes behind.
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
const IMPOSSIBLE_LOOKS = 10_000

/** What a claim answers when there is no room: wait until `threshold` records are given back. */
export const NO_ROOM = -1

/** Counters of the one who writes. `heapEnd` of a slot is where the heap stood after its record. */
export class Producer {
  claimed = 0
  /** Records filled. */
  write = 0
  /** Records published. */
  commit = 0
  heapWrite = 0
  heapSealed = 0
  /** What the last claim that found no room waits for. */
  threshold = 0
  discards = false
  streaming = false
  /** The whole ring. */
  readonly bytes: Uint8Array
  readonly view: DataView
  private recordBytes = 0
  private read = 0
  private gate = 0
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

  /** Start from the ring's counters: those of a fresh ring, or of one to be taken over. */
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
    this.gate = words.load(AT.gate)
    const floor = words.hasReader() ? Math.min(this.gate, words.floor()) : this.gate
    this.read = Math.max(Math.min(floor, commit), commit - this.map.indexCapacity, 0)
    // What is still unread may lie anywhere in the heap, until all of it is read.
    heapEnd.fill(Math.max(0, heap - this.map.heapCapacity))
    heapEnd[this.newest()] = heap
  }

  begin(): void {
    this.streaming = true
    this.words.setStatus(STREAMING)
  }

  /** Free slots, after a look at the consumers when there seem to be fewer than `wanted`. */
  room(wanted: number): number {
    if (this.words.aborted()) throw stopped()
    const { indexCapacity } = this.map
    if (indexCapacity - (this.claimed - this.read) < wanted) this.refresh()
    const room = indexCapacity - (this.claimed - this.read)
    if (this.words.version === 6) return room
    if (this.claimed >= V5_RECORDS_MAX) throw new RingExhaustedError()
    return Math.min(room, V5_RECORDS_MAX - this.claimed)
  }

  /** Claim `count` zeroed slots in succession; the first one's number, or NO_ROOM. */
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

  /** Claim heap bytes in one piece for the records under construction; their offset, or NO_ROOM. */
  claimHeap(size: number, align: number): number {
    const capacity = this.map.heapCapacity
    if (size === 0) return this.heapWrite
    // Half of the heap for one record, so that a skip at its end always leaves room for it.
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

  /** The next `count` claimed records are filled: they are part of the next publication. */
  seal(count: number): void {
    if (count === 0) return
    // Which bytes belong to which of them is not known, so all are kept until the last is read.
    const before = this.heapTail(this.write)
    for (let seq = this.write; seq < this.write + count; seq += 1)
      this.heapEnd[this.slot(seq)] = before
    this.write += count
    this.heapEnd[this.newest()] = this.heapWrite
    this.heapSealed = this.heapWrite
    this.recordBytes = 0
  }

  /** Seal slots and heap bytes that somebody else laid out, and who accounts for them himself. */
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
    this.heapEnd[this.newest()] = heap // what is shown ahead of its record goes with the newest
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
    // Heap before records: who sees the count sees the slots, the payloads and the heap.
    words.store(AT.heapCommit, this.heapSealed)
    words.store(AT.commit, after)
    if (words.version === 5) {
      words.store32(AT.v5HeapWrite, this.heapSealed)
      words.store32(AT.v5HeapCommit, this.heapSealed)
      words.store32(AT.v5Write, after)
      words.store32(AT.v5Commit, after)
      Atomics.notify(words.i32, AT.v5Commit >>> 2)
    }
    // The sleeper stores its threshold, then loads the count: one of us sees the other.
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      const wanted = words.load(entryAt(index, ENTRY.threshold))
      if (before < wanted && wanted <= after) {
        words.ringBell(entryAt(index, ENTRY.bell))
        words.store(AT.rings, (this.rings += 1))
      }
    }
  }

  /** Whether `threshold` records are given back, or whoever kept them is gone. */
  hasRoom(threshold: number): boolean {
    this.refresh()
    return this.read >= threshold
  }

  /** Where the heap stood after record `count - 1`: nothing below is needed once `count` are read. */
  heapTail(count: number): number {
    return this.heapEnd[this.slot(count - 1 + this.map.indexCapacity)]!
  }

  /** Records that may be overwritten, as far as was seen. */
  get released(): number {
    return this.read
  }

  /** Begin the next generation in the same ring; nobody may be reading. */
  reset(): void {
    const { words } = this
    for (const at of [AT.write, AT.commit, AT.heapWrite, AT.heapCommit, AT.threshold, AT.gate])
      words.store(at, 0)
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      words.store(entryAt(index, ENTRY.read), 0)
      words.store(entryAt(index, ENTRY.threshold), 0)
      // Exchanged: somebody may enter again this moment.
      Atomics.compareExchange(words.i32, entryAt(index, ENTRY.state) >>> 2, LEFT, VACANT)
    }
    if (words.version === 5)
      for (let at: number = AT.v5Write; at <= AT.v5Abort; at += 4) words.store32(at, 0)
    words.store32(AT.abort, 0)
    words.store32(AT.status, INITIALIZING)
    // Last: who sees the new generation sees the counters it begins with.
    words.store32(AT.generation, words.load32(AT.generation) + 1)
    // Who joined meanwhile may show a count of the old stream: it looks at the generation after it
    // stored that, and we look here.
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
   * Move the cached floor forward. A consumer that joins takes the floor for its start, makes itself
   * visible, then looks at the gate; we show the gate, then look for joiners. So either we see the
   * joiner and keep its records, or it sees the gate and starts there.
   */
  private refresh(): void {
    const { words } = this
    let floor = words.floor()
    if (this.discards && !words.hasReader()) floor = this.commit
    for (let looks = 0; floor > this.commit; looks += 1) {
      // Who joined while we began anew shows an old count for a moment.
      if (looks === IMPOSSIBLE_LOOKS)
        throw new StrandCorruptError(`${floor} of ${this.commit} records are acknowledged`)
      floor = words.floor()
    }
    if (floor <= this.read) return // no progress, or a joiner on its way to the gate
    if (floor > this.gate) {
      this.gate = floor
      words.store(AT.gate, floor)
      if (words.hasReader()) floor = Math.min(floor, words.floor())
    }
    this.read = Math.max(this.read, floor)
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

  /** Where a payload would start: aligned, and never across the physical end. */
  private place(size: number, align: number): number {
    const capacity = this.map.heapCapacity
    const start = Math.ceil(this.heapWrite / align) * align
    const physical = start % capacity
    return physical + size > capacity ? start + capacity - physical : start
  }

  /** Tell whoever walks the heap in order that the rest before the physical end is unused. */
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
