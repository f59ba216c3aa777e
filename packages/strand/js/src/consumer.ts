/** The consumer's half of the protocol: joining, giving back, leaving. */

import { StrandConflictError } from './errors.js'
import type { StrandMap } from './header.js'
import { AT, ATTACHED, CONSUMER_COUNT, ENTRY, entryAt, LEFT, type RingWords } from './words.js'

/** Where a consumer starts: at the oldest record that is still kept, or at the next to come. */
export type Start = 'oldest' | 'next'

/** What one view holds in the ring: its consumers' entries, and counters as it last saw them. */
export class Consumer {
  /** Records published, as far as was seen; refreshed when a record beyond is asked for. */
  committed = 0
  /** The first record that none of the entries held here has given back. */
  floor = Infinity
  private generation: number
  private readonly reads: number[] = []
  private readonly held = new Set<number>()
  private readonly rings: number[] = []
  private sleeps = 0
  /** Whether a new stream was noticed by joining it, and no wait has said so yet. */
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

  /** How far the slowest entry held here has read, `index` left out; Infinity without others. */
  slowestExcept(index: number): number {
    let slowest = Infinity
    for (const other of this.held)
      if (other !== index) slowest = Math.min(slowest, this.reads[other]!)
    return slowest
  }

  readOf(index: number): number {
    return this.reads[index]!
  }

  /** Take a free entry; throws StrandConflictError when all eight are taken. */
  join(start: Start): number {
    const { words } = this
    if (this.followReset()) this.rewound = this.held.size > 0
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      const at = entryAt(index, ENTRY.state)
      const state = words.load32(at)
      if (state === ATTACHED) continue
      const first = start === 'next' ? words.committed() : words.floor()
      // Until our start is stored the entry shows its last holder's, which is never too far.
      if (Atomics.compareExchange(words.i32, at >>> 2, state, ATTACHED) !== state) continue
      this.enter(index, first)
      // The producer may have begun anew meanwhile, and not have seen us.
      while (this.stale()) {
        this.rewound = this.held.size > 1
        this.catchUp()
        this.enter(index, start === 'next' ? words.committed() : 0)
      }
      return index
    }
    throw new StrandConflictError('a ring has eight consumers at most, and all are taken')
  }

  leave(index: number): void {
    this.held.delete(index)
    this.settle()
    this.words.store32(entryAt(index, ENTRY.state), LEFT)
    this.words.ringBell(AT.bell)
  }

  /** Give records below `upTo` back; RangeError for what is not committed, or was given back. */
  acknowledge(index: number, upTo: number): void {
    const old = this.reads[index]!
    if (upTo === old) return
    if (!(upTo > old && upTo <= this.words.committed()) || !Number.isInteger(upTo) || this.stale())
      throw new RangeError(
        `records below ${upTo} cannot be acknowledged: ${old} are already, ` +
          `${this.words.committed()} are committed`,
      )
    this.giveBack(index, upTo)
  }

  readable(seq: number): boolean {
    if (!(seq >= this.floor)) return false
    if (seq >= this.committed) {
      const committed = this.words.committed()
      const possible = committed - this.floor <= this.map.indexCapacity
      if (this.rewound || this.stale() || !possible) return false
      this.committed = committed
    }
    return seq < this.committed
  }

  /** Whether the producer began a new stream since the last look; if so, follow it to its start. */
  followReset(): boolean {
    const { rewound } = this
    this.rewound = false
    if (!this.stale()) return rewound
    this.catchUp()
    return true
  }

  /** Ask to be woken at `threshold` committed records; the bell to sleep on, as it is now. */
  arm(index: number, threshold: number): number {
    this.words.store(entryAt(index, ENTRY.threshold), threshold)
    return this.words.load32(entryAt(index, ENTRY.bell))
  }

  countSleep(index: number): void {
    this.words.store(entryAt(index, ENTRY.sleeps), (this.sleeps += 1))
  }

  /** Whether `threshold` records of the stream that we know of are committed. */
  hasCommitted(threshold: number): boolean {
    return this.words.committed() >= threshold && !this.stale()
  }

  /** Attach an entry at record `first`, or at the gate when that is further. */
  private enter(index: number, first: number): void {
    const { words } = this
    words.store(entryAt(index, ENTRY.threshold), 0)
    words.store(entryAt(index, ENTRY.read), first)
    this.held.add(index)
    this.reads[index] = first
    this.rings[index] ??= 0
    // Visible first, then a look at the gate: see Producer.refresh.
    this.giveBack(index, Math.max(first, words.load(AT.gate)))
    // With nobody attached the floor was another, maybe beyond what the producer waits for.
    words.ringBell(AT.bell)
  }

  private catchUp(): void {
    this.generation = this.words.load32(AT.generation)
    this.committed = 0
    this.reads.fill(0)
    this.settle()
  }

  private stale(): boolean {
    return this.words.load32(AT.generation) !== this.generation
  }

  private giveBack(index: number, upTo: number): void {
    const { words } = this
    const old = this.reads[index]!
    this.reads[index] = upTo
    words.store(entryAt(index, ENTRY.read), upTo)
    if (words.version === 5) {
      words.store32(AT.v5Read, words.floor())
      Atomics.notify(words.i32, AT.v5Read >>> 2)
    }
    const wanted = words.load(AT.threshold)
    if (old < wanted && wanted <= upTo) {
      words.ringBell(AT.bell)
      words.store(entryAt(index, ENTRY.rings), (this.rings[index]! += 1))
    }
    this.settle()
  }

  private settle(): void {
    this.floor = Infinity
    for (const index of this.held) this.floor = Math.min(this.floor, this.reads[index]!)
  }
}
