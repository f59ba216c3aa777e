/** The consumer's half of the protocol: joining, acknowledging, leaving. */

import { StrandConflictError } from './errors.js'
import type { StrandMap } from './header.js'
import { AT, ATTACHED, CONSUMER_COUNT, ENTRY, entryAt, LEFT, type RingWords } from './words.js'

/** Where a consumer starts: at the oldest unacknowledged record, or at the next one published. */
export type Start = 'oldest' | 'next'

/** The entries that one view holds in the ring, and its cached counters. */
export class Consumer {
  /** Cached commit counter; refreshed when a record beyond it is requested. */
  committed = 0
  /** The lowest position of the entries held here: no record below may be read. */
  lowWaterMark = Infinity
  private generation: number
  private readonly reads: number[] = []
  private readonly held = new Set<number>()
  private readonly rings: number[] = []
  private sleeps = 0
  /** Whether a join noticed a new stream that no wait has reported yet. */
  private rewound = false

  constructor(
    readonly words: RingWords,
    readonly map: StrandMap,
  ) {
    this.generation = words.load32(AT.generation)
  }

  /** The entry whose bell this view sleeps on; undefined when it holds none. */
  get entry(): number | undefined {
    return this.held.size === 0 ? undefined : Math.min(...this.held)
  }

  holds(index: number): boolean {
    return this.held.has(index)
  }

  /** The lowest position of the entries held here except `index`; Infinity without others. */
  slowestExcept(index: number): number {
    let slowest = Infinity
    for (const other of this.held)
      if (other !== index) slowest = Math.min(slowest, this.reads[other]!)
    return slowest
  }

  readOf(index: number): number {
    return this.reads[index]!
  }

  /** Attach to a free entry; throws StrandConflictError when all eight are in use. */
  join(start: Start): number {
    const { words } = this
    if (this.followReset()) this.rewound = this.held.size > 0
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      const at = entryAt(index, ENTRY.state)
      const state = words.load32(at)
      if (state === ATTACHED) continue
      const first = start === 'next' ? words.committed() : words.lowWaterMark()
      // Until the position is stored, the entry has its last holder's, which is never too high.
      if (Atomics.compareExchange(words.i32, at >>> 2, state, ATTACHED) !== state) continue
      this.enter(index, first)
      // The producer may have reset the ring meanwhile without seeing this entry.
      while (this.stale()) {
        this.rewound = this.held.size > 1
        this.catchUp()
        this.enter(index, start === 'next' ? words.committed() : 0)
      }
      return index
    }
    throw new StrandConflictError('a ring has at most eight consumers, and all eight are in use')
  }

  leave(index: number): void {
    this.held.delete(index)
    this.updateLowWaterMark()
    this.words.store32(entryAt(index, ENTRY.state), LEFT)
    this.words.ringBell(AT.bell)
  }

  /** Acknowledge the records below `upTo`; RangeError if that is not committed, or goes back. */
  acknowledge(index: number, upTo: number): void {
    const old = this.reads[index]!
    if (upTo === old) return
    if (!(upTo > old && upTo <= this.words.committed()) || !Number.isInteger(upTo) || this.stale())
      throw new RangeError(
        `records below ${upTo} cannot be acknowledged: ${old} are already, ` +
          `${this.words.committed()} are committed`,
      )
    this.advanceRead(index, upTo)
  }

  readable(seq: number): boolean {
    if (!(seq >= this.lowWaterMark)) return false
    if (seq >= this.committed) {
      const committed = this.words.committed()
      const possible = committed - this.lowWaterMark <= this.map.indexCapacity
      if (this.rewound || this.stale() || !possible) return false
      this.committed = committed
    }
    return seq < this.committed
  }

  /** Whether the producer began a new stream since the last call; if so, continue at its start. */
  followReset(): boolean {
    const { rewound } = this
    this.rewound = false
    if (!this.stale()) return rewound
    this.catchUp()
    return true
  }

  /** Store the threshold at which the producer rings; return the current value of the bell. */
  arm(index: number, threshold: number): number {
    this.words.store(entryAt(index, ENTRY.threshold), threshold)
    return this.words.load32(entryAt(index, ENTRY.bell))
  }

  countSleep(index: number): void {
    this.words.store(entryAt(index, ENTRY.sleeps), (this.sleeps += 1))
  }

  /** Whether `threshold` records of the current stream are committed. */
  hasCommitted(threshold: number): boolean {
    return this.words.committed() >= threshold && !this.stale()
  }

  /** Attach an entry at record `first`, or at the join position when that is higher. */
  private enter(index: number, first: number): void {
    const { words } = this
    words.store(entryAt(index, ENTRY.threshold), 0)
    words.store(entryAt(index, ENTRY.read), first)
    this.held.add(index)
    this.reads[index] = first
    this.rings[index] ??= 0
    // Attach first, then load the join position: see Producer.refresh.
    this.advanceRead(index, Math.max(first, words.load(AT.joinPosition)))
    // Attaching may raise the low-water mark past the threshold of a waiting producer.
    words.ringBell(AT.bell)
  }

  private catchUp(): void {
    this.generation = this.words.load32(AT.generation)
    this.committed = 0
    this.reads.fill(0)
    this.updateLowWaterMark()
  }

  private stale(): boolean {
    return this.words.load32(AT.generation) !== this.generation
  }

  private advanceRead(index: number, upTo: number): void {
    const { words } = this
    const old = this.reads[index]!
    this.reads[index] = upTo
    words.store(entryAt(index, ENTRY.read), upTo)
    if (words.version === 5) {
      words.store32(AT.v5Read, words.lowWaterMark())
      Atomics.notify(words.i32, AT.v5Read >>> 2)
    }
    const wanted = words.load(AT.threshold)
    if (old < wanted && wanted <= upTo) {
      words.ringBell(AT.bell)
      words.store(entryAt(index, ENTRY.rings), (this.rings[index]! += 1))
    }
    this.updateLowWaterMark()
  }

  private updateLowWaterMark(): void {
    this.lowWaterMark = Infinity
    for (const index of this.held)
      this.lowWaterMark = Math.min(this.lowWaterMark, this.reads[index]!)
  }
}
