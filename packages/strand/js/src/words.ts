/**
 * The ring's shared words: their offsets, and values derived from several of them. Every `Atomics`
 * operation is sequentially consistent, so the fences of the C core are not needed here.
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
  joinPosition: 3224,
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
   * Records published so far. In v5 the producer may be another implementation, which stores only
   * the v5 word; this package's producer stores its own counter first, then the v5 word.
   */
  committed(): number {
    const ours = this.load(AT.commit)
    return this.version === 6 ? ours : Math.max(ours, this.load32(AT.v5Commit))
  }

  /** The status word; in v5 the higher of it and the v5 word of another implementation. */
  status(): number {
    const ours = this.load32(AT.status)
    return this.version === 6 ? ours : Math.max(ours, this.load32(AT.v5Status))
  }

  /** The v5 commit word if a plain v5 producer, which rings no bells, writes it; else null. */
  plainCommit(): number | null {
    if (this.version === 6 || this.load32(AT.v5Status) === this.load32(AT.status)) return null
    return this.load32(AT.v5Commit)
  }

  /** Whether a plain v5 reader, which stores v5 words and rings no bells, may be attached. */
  hasPlainReader(): boolean {
    if (this.version === 6) return false
    let attached = false
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      if (this.load32(AT.v5Consumers + 4 * index) !== V5_VACANT) return true
      attached ||= this.load32(entryAt(index, ENTRY.state)) === ATTACHED
    }
    return !attached
  }

  /** The low-water mark: records below it may be overwritten. */
  lowWaterMark(): number {
    let lowest = Infinity // position of an attached consumer
    let furthest = 0 // position of one that left: its successor continues there
    for (let index = 0; index < CONSUMER_COUNT; index += 1) {
      const state = this.load32(entryAt(index, ENTRY.state))
      if (state !== ATTACHED && state !== LEFT) continue
      const read = this.load(entryAt(index, ENTRY.read))
      if (state === ATTACHED) lowest = Math.min(lowest, read)
      else furthest = Math.max(furthest, read)
    }
    if (this.version === 5) {
      // A plain v5 reader has no entry; it stores its position in the v5 part of the header.
      for (let at: number = AT.v5Consumers; at < AT.v5Consumers + 4 * CONSUMER_COUNT; at += 4) {
        const read = this.load32(at)
        if (read !== V5_VACANT) lowest = Math.min(lowest, read)
      }
      furthest = Math.max(furthest, this.load32(AT.v5Read))
    }
    return lowest === Infinity ? furthest : lowest
  }

  /** The position of the plain v5 consumer in slot `index`; Infinity for a vacant slot. */
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
   * Ring a bell. The increment comes after the store that the sleeper waits for: a sleeper that reads
   * the new value also sees that store, and one that read the old value does not fall asleep.
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

/** Throw for an impossible counter: other code has overwritten the ring. */
export function requireCounter(what: string, value: number, most: number): void {
  if (!(value >= 0 && value <= most))
    throw new StrandCorruptError(`${what} is ${value}, and cannot be beyond ${most}`)
}
