/**
 * Receives a ring from a remote producer: frames from a network are written to a SharedArrayBuffer of
 * the same geometry, at the same offsets, for readers in this process.
 */

import { HeapLedger } from './arrival.js'
import { BridgeFrameError, StrandAbortError, StrandClosedError } from './errors.js'
import { decodeFrame, type EndFrame, type HelloFrame, type RecordsFrame } from './frames.js'
import {
  EXTENSION_AT,
  EXTENSION_MAGIC,
  HEADER_BYTES,
  readStrandHeader,
  type StrandMap,
} from './header.js'
import { Producer } from './producer.js'
import { NAP_MS, sleep } from './waiting.js'
import { AT, EOS, ERROR, RingWords } from './words.js'

export interface BridgeOptions {
  /** The largest ring to allocate, in bytes. */
  maxBytes?: number
  /** Called when readers have acknowledged the records below `upTo`: notify the sender. */
  onAcknowledge?: (upTo: number) => void
  /** Called once when a reader signals abort: notify the sender. */
  onAbort?: () => void
}

const V5_RECORDS_MAX = 0x7fffffff
const V5_VACANT = 0x7fffffff
const LEDGER_BYTES = 16 // memory of the HeapLedger for each slot

/**
 * Receives one stream. `buffer` is the ring: attach a `StrandView` to it, here or in a Worker. A frame
 * that breaks a rule throws BridgeFrameError and publishes none of its records; the stream then ends
 * with an error for the readers too.
 */
export class StrandBridge {
  readonly buffer: SharedArrayBuffer
  readonly map: StrandMap
  /** Resolves when the stream has ended and was read; rejects when it was aborted or lost. */
  readonly finished: Promise<void>
  private readonly words: RingWords
  private readonly producer: Producer
  private readonly ledger: HeapLedger
  private readonly options: BridgeOptions
  private acknowledged: number
  private ended = false
  private abandoned = false
  private finish!: (error?: unknown) => void

  /** Begin with a hello frame; BridgeFrameError or StrandHeaderError when it announces no ring. */
  constructor(hello: Uint8Array, options: BridgeOptions = {}) {
    const frame = decodeFrame(hello)
    if (frame.kind !== 'hello') throw new BridgeFrameError(`a stream begins with ${frame.kind}`)
    this.options = options
    this.map = announcedMap(frame, options.maxBytes ?? 2 ** 28)
    this.buffer = new SharedArrayBuffer(this.map.totalBytes)
    this.words = new RingWords(this.buffer, this.map.version)
    this.initialize(frame)
    this.producer = new Producer(this.words, this.map)
    this.producer.begin()
    this.ledger = new HeapLedger(this.map, frame.heap)
    this.acknowledged = frame.first
    this.finished = new Promise((resolve, reject) => {
      this.finish = (error) => (error === undefined ? resolve() : reject(error as Error))
    })
    this.finished.catch(() => undefined) // no unhandled rejection if the caller does not await it
    void this.watchReaders()
  }

  /** Records published to readers so far. */
  get committedCount(): number {
    return this.producer.commit
  }

  /** Records that every reader has acknowledged. */
  get acknowledgedCount(): number {
    return this.producer.released
  }

  /** Apply a frame now. A frame that would overwrite unread records throws BridgeFrameError. */
  apply(bytes: Uint8Array): void {
    this.guard(() => {
      const frame = this.expect(bytes)
      if (frame.kind === 'end') return this.end(frame)
      this.check(frame)
      if (this.lacks(frame))
        throw new BridgeFrameError('the sender sent more than the readers have acknowledged')
      this.show(frame)
    })
  }

  /** Apply a frame once the readers have made room for it. One call at a time. */
  async applyWhenRoom(bytes: Uint8Array): Promise<void> {
    const frame = this.guard(() => {
      const expected = this.expect(bytes)
      if (expected.kind === 'records') this.check(expected)
      return expected
    })
    if (frame.kind === 'end') return this.end(frame)
    for (;;) {
      this.requireOpen()
      if (this.words.aborted()) throw this.readersStopped()
      const seen = this.watchBell()
      const before = this.producer.released
      if (!this.lacks(frame)) return this.show(frame)
      if (this.producer.released === before) await sleep(this.words.i32, AT.bell, seen, NAP_MS)
    }
  }

  /** End the stream with an error for its readers, because the connection or a reader failed. */
  fail(reason: string, error: unknown = new StrandAbortError(reason)): void {
    if (this.ended) return
    this.ended = true
    this.words.writeReason(reason)
    this.words.setStatus(ERROR)
    this.finish(error)
  }

  /** Stop receiving; readers can read the received records, and then get an error. */
  close(): void {
    const error = new StrandClosedError('the bridge was closed before all of it was read')
    this.fail('the receiver closed the bridge', error)
    this.abandoned = true
    this.words.ringBell(AT.bell)
    this.finish(error)
  }

  /** Whether the stream has ended, well or not. */
  get closed(): boolean {
    return this.ended
  }

  private initialize({ header, first, heap }: HelloFrame): void {
    const { words } = this
    new Uint8Array(this.buffer).set(header)
    for (let at: number = AT.v5Write; at <= AT.v5Abort; at += 4) words.store32(at, 0)
    for (let at: number = AT.v5Consumers; at < AT.v5Consumers + 32; at += 4)
      words.store32(at, V5_VACANT)
    words.store32(EXTENSION_AT, EXTENSION_MAGIC)
    // Readers start at the join position: no earlier record is received.
    for (const at of [AT.write, AT.commit, AT.joinPosition]) words.store(at, first)
    for (const at of [AT.heapWrite, AT.heapCommit]) words.store(at, heap)
    if (words.version === 6) return
    for (const at of [AT.v5Write, AT.v5Commit, AT.v5Read]) words.store32(at, first)
    for (const at of [AT.v5HeapWrite, AT.v5HeapCommit]) words.store32(at, heap)
  }

  private expect(bytes: Uint8Array): RecordsFrame | EndFrame {
    this.requireOpen()
    if (this.words.aborted()) throw this.readersStopped()
    const frame = decodeFrame(bytes)
    if (frame.kind === 'hello') throw new BridgeFrameError('a second stream begins in the first')
    return frame
  }

  private check(frame: RecordsFrame): void {
    const { indexCapacity, heapCapacity, recordStride, version } = this.map
    const { producer } = this
    if (frame.first !== producer.write || frame.heap < producer.heapSealed)
      throw new BridgeFrameError(
        `record ${frame.first} with heap ${frame.heap} came where ` +
          `${producer.write} with ${producer.heapSealed} was next`,
      )
    if (frame.slots.length !== frame.count * recordStride)
      throw new BridgeFrameError(`${frame.slots.length} bytes are not ${frame.count} slots`)
    if (frame.count > indexCapacity || frame.payloads.length > heapCapacity)
      throw new BridgeFrameError('a frame carries more than the ring holds')
    if (frame.count === 0 && frame.payloads.length === 0)
      throw new BridgeFrameError('a frame carries nothing')
    if (version === 5 && frame.first + frame.count > V5_RECORDS_MAX)
      throw new BridgeFrameError('a v5 ring carries 2147483647 records at most')
    this.ledger.check(frame, producer.heapSealed)
  }

  /** Whether readers must acknowledge records before the frame fits. */
  private lacks(frame: RecordsFrame): boolean {
    const { producer, ledger, map } = this
    if (!producer.hasRoom(frame.first + frame.count - map.indexCapacity)) return true
    return !ledger.hasRoom(frame.heap + frame.payloads.length, producer.released, producer.write)
  }

  private show(frame: RecordsFrame): void {
    const { producer, map } = this
    const { bytes } = producer
    const slot = frame.first % map.indexCapacity
    copyAround(
      bytes,
      map.indexStart,
      map.indexCapacity * map.recordStride,
      slot * map.recordStride,
      frame.slots,
    )
    copyAround(
      bytes,
      map.heapStart,
      map.heapCapacity,
      frame.heap % map.heapCapacity,
      frame.payloads,
    )
    this.ledger.accept(frame, producer.heapSealed)
    producer.sealAs(frame.first + frame.count, frame.heap + frame.payloads.length)
    if (frame.count === 0) producer.commitHeap()
    else producer.publish()
  }

  private end({ status, committed, reason }: EndFrame): void {
    if (committed !== this.producer.commit)
      return this.guard(() => {
        throw new BridgeFrameError(
          `${committed} records were sent, and ${this.producer.commit} came`,
        )
      })
    if (status === 'error') return this.fail(reason)
    this.ended = true
    this.words.setStatus(EOS)
  }

  /** Report acknowledgements to the sender until the stream has ended and was read completely. */
  private async watchReaders(): Promise<void> {
    const { words, producer } = this
    while (!this.abandoned) {
      const seen = this.watchBell()
      producer.hasRoom(producer.released + 1)
      if (producer.released > this.acknowledged) {
        this.acknowledged = producer.released
        this.options.onAcknowledge?.(this.acknowledged)
        continue
      }
      const status = words.status()
      if (status === EOS && this.acknowledged === producer.commit) return this.finish()
      if (status === ERROR) return
      if (words.aborted()) return void this.readersStopped()
      await sleep(words.i32, AT.bell, seen, NAP_MS)
    }
  }

  /** Ask readers to ring at their next acknowledgement; return the current value of the bell. */
  private watchBell(): number {
    this.words.store(AT.threshold, this.producer.released + 1)
    return this.words.load32(AT.bell)
  }

  private readersStopped(): StrandAbortError {
    const error = new StrandAbortError('the consumer asked the producer to stop')
    if (!this.ended) this.options.onAbort?.()
    this.fail(error.reason, error)
    this.finish(error) // also when the stream had ended before
    return error
  }

  private requireOpen(): void {
    if (this.ended) throw new StrandClosedError('the bridged stream has ended')
  }

  /** Run a step; a BridgeFrameError ends the stream. */
  private guard<T>(step: () => T): T {
    try {
      return step()
    } catch (error) {
      if (error instanceof BridgeFrameError) this.fail(error.message, error)
      throw error
    }
  }
}

function announcedMap({ header, first, heap }: HelloFrame, maxBytes: number): StrandMap {
  const head = new Uint8Array(HEADER_BYTES)
  head.set(header)
  const map = readStrandHeader(head, Infinity)
  const needed = map.totalBytes + LEDGER_BYTES * map.indexCapacity
  if (needed > maxBytes)
    throw new BridgeFrameError(
      `a ring of ${needed} bytes is announced, and ${maxBytes} are allowed`,
      'pass a larger maxBytes if you trust the sender',
    )
  if (map.version === 5 && first > V5_RECORDS_MAX)
    throw new BridgeFrameError('a v5 ring carries 2147483647 records at most')
  if (heap > Number.MAX_SAFE_INTEGER - map.heapCapacity)
    throw new BridgeFrameError(`a heap count of ${heap} is beyond what a browser counts`)
  return map
}

/** Copy into a region of `bytes` from `at` on, wrapping at the end of the region. */
function copyAround(
  bytes: Uint8Array,
  start: number,
  size: number,
  at: number,
  data: Uint8Array,
): void {
  const straight = Math.min(data.length, size - at)
  bytes.set(data.subarray(0, straight), start + at)
  if (straight < data.length) bytes.set(data.subarray(straight), start)
}
