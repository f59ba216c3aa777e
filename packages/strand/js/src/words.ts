/**
 * The ring's shared words: where they are, and what follows from them together. Every `Atomics`
 * operation is sequentially consistent, so what the C core does with fences needs none here.
 */

import { StrandCorruptError } from './errors.js'

/** Byte offsets of the shared words (spec/strand-wire.md). */
export const AT = {
  v5Write: 28,
  v5Commit: 32,
  v5Read: 36,
  v5Status: 40,
  v5HeapWrite: 44,
  v5HeapCommit: 48,
  v5Abort: 52,
  v5Consumers: 56,
  generation: 3096,
  write: 3136,
  commit: 3144,
  heapWrite: 3152,
  heapCommit: 3160,
  stalls: 3184,
  rings: 3192,
  threshold: 3200,
  status: 3208,
  abort: 3212,
  bell: 3216,
  gate: 3224,
  consumers: 3264,
  reason: 3776,
} as const

/** Byte offsets in a consumer's entry. */
export const ENTRY = { read: 0, threshold: 8, state: 20, bell: 32, sleeps: 40, rings: 48 } as const

export const CONSUMER_COUNT = 8
export const VACANT = 0
export const ATTACHED = 1
export const LEFT = 2

export const INITIALIZING = 0
export const STREAMING = 1
export const EOS = 2
export const ERROR = 3

const CONSUMER_BYTES = 64
const REASON_BYTES_MAX = 316
const V5_VACANT = 0x7fffffff

/** Byte offset of a word of consumer entry `index`. */
export function entryAt(index: number, word: number): number {
  return AT.consumers + CONSUMER_BYTES * index + word
}

/** The shared words of one ring, by byte offset; counters are Numbers, exact up to 2^53. */
export class RingWords {
  readonly i32: Int32Array
  private readonly u64: BigUint64Array

  constructor(
    readonly buffer: ArrayBufferLike,
    readonly version: 5 | 6,
  ) {
    this.i32 = new Int32Array(buffer, 0, 1024)
    this.u64 = new BigUint64Array(buffer, 0, 512)
  }

  load(at: number): number {
    return Number(Atomics.load(this.u64, at >>> 3))
  }

  store(at: number, value: number): void {
    Atomics.store(this.u64, at >>> 3, BigInt(value))
  }

  load32(at: number): number {
    return Atomics.load(this.i32, at >>> 2)
  }

  store32(at: number, value: number): void {
    Atomics.store(this.i32, at >>> 2, value)
  }

  /**
   * Records published so far; whatever is below may be read. In v5 the producer may be one that
   * knows nothing of our counters; ours stores its own counter first, then the v5 word.
   */
  committed(): number {
    const ours = this.load(AT.commit)
    return this.version === 6 ? ours : Math.max(ours, this.load32(AT.v5Commit))
  }

  /** The status word; in v5 that of a producer which knows nothing of ours, when it is further. */
  status(): number {
    const ours = this.load32(AT.status)
    return this.version === 6 ? ours : Math.max(ours, this.load32(AT.v5Status))
  }

  /** The v5 commit word when its producer rings no bells of ours, and null when it does. */
  plainCommit(): number | null {
    if (this.version === 6 || this.load32(AT.v5Status) === this.load32(AT.status)) return null
    return this.load32(AT.v5Commit)
  }

  /** Whether somebody may read who moves v5 words only, and so rings no bell of ours. */
  hasPlainReader(): boolean {
    if (this.version === 6) return false
    let attached = false
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      if (this.load32(AT.v5Consumers + 4 * index) !== V5_VACANT) return true
      attached ||= this.load32(entryAt(index, ENTRY.state)) === ATTACHED
    }
    return !attached
  }

  /** Below which record nothing is needed any more. */
  floor(): number {
    let lowest = Infinity // of those who read
    let furthest = 0 // of those who left: where a successor goes on
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      const state = this.load32(entryAt(index, ENTRY.state))
      if (state !== ATTACHED && state !== LEFT) continue
      const read = this.load(entryAt(index, ENTRY.read))
      if (state === ATTACHED) lowest = Math.min(lowest, read)
      else furthest = Math.max(furthest, read)
    }
    if (this.version === 5) {
      // A plain v5 reader knows nothing of our entries: it moves its word in the v5 part.
      for (let at: number = AT.v5Consumers; at < AT.v5Consumers + 4 * CONSUMER_COUNT; at += 4) {
        const read = this.load32(at)
        if (read !== V5_VACANT) lowest = Math.min(lowest, read)
      }
      furthest = Math.max(furthest, this.load32(AT.v5Read))
    }
    return lowest === Infinity ? furthest : lowest
  }

  /** How far the plain v5 consumer in slot `index` has read; Infinity for a vacant slot. */
  plainRead(index: number): number {
    const read = this.load32(AT.v5Consumers + 4 * index)
    return read === V5_VACANT ? Infinity : read
  }

  hasReader(): boolean {
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      if (this.load32(entryAt(index, ENTRY.state)) === ATTACHED) return true
      if (this.version === 5 && this.load32(AT.v5Consumers + 4 * index) !== V5_VACANT) return true
    }
    return false
  }

  aborted(): boolean {
    if (this.load32(AT.abort) !== 0) return true
    return this.version === 5 && this.load32(AT.v5Abort) !== 0
  }

  signalAbort(): void {
    this.store32(AT.abort, 1)
    if (this.version === 5) this.store32(AT.v5Abort, 1)
    this.ringEveryBell()
  }

  setStatus(status: number): void {
    this.store32(AT.status, status)
    if (this.version === 5) this.store32(AT.v5Status, status)
    this.ringEveryBell()
  }

  /**
   * Ring a sleeper's bell. The increment comes after whatever the sleeper waits for, so one that
   * reads the new bell also sees the reason, and one that read the old cannot fall asleep on it.
   */
  ringBell(at: number): void {
    Atomics.add(this.i32, at >>> 2, 1)
    Atomics.notify(this.i32, at >>> 2)
    // A producer that serves plain v5 readers sleeps on their word as well.
    if (this.version === 5 && at === AT.bell) Atomics.notify(this.i32, AT.v5Read >>> 2)
  }

  ringEveryBell(): void {
    this.ringBell(AT.bell)
    for (let index = 0; index < CONSUMER_COUNT; index += 1)
      this.ringBell(entryAt(index, ENTRY.bell))
    if (this.version === 5) Atomics.notify(this.i32, AT.v5Commit >>> 2) // plain v5 readers
  }

  writeReason(reason: string): void {
    const encoded = new TextEncoder().encode(reason)
    let size = Math.min(encoded.length, REASON_BYTES_MAX)
    while (size < encoded.length && (encoded[size]! & 0xc0) === 0x80) size -= 1
    new Uint8Array(this.buffer, AT.reason + 4, size).set(encoded.subarray(0, size))
    this.store32(AT.reason, size)
  }

  readReason(): string {
    const size = Math.min(this.load32(AT.reason) >>> 0, REASON_BYTES_MAX)
    const copy = new Uint8Array(size)
    copy.set(new Uint8Array(this.buffer, AT.reason + 4, size))
    return new TextDecoder().decode(copy)
  }
}

/** Refuse a counter that cannot be: the ring was overwritten by something that is no ring. */
export function requireCounter(what: string, value: number, most: number): void {
  if (!(value >= 0 && value <= most))
    throw new StrandCorruptError(`${what} is ${value}, and cannot be beyond ${most}`)
}
