/** The frames that transport a ring's bytes: spec/strand-wire.md, "Bridge frames". */

import { BridgeFrameError } from './errors.js'

/** The longest frame, including its head. */
export const FRAME_BYTES_MAX = 2 ** 20

const FORMAT = 1
const HELLO = 1
const RECORDS = 2
const END = 3
const ACKNOWLEDGE = 16
const ABORT = 17
const HELLO_HEAD = 24
const RECORDS_HEAD = 32
const END_HEAD = 16
const REASON_BYTES_MAX = 316
const HEADER_STATIC_MAX = 3072

/** The ring as it was when its transfer began. */
export interface HelloFrame {
  readonly kind: 'hello'
  /** The first record that will be sent. */
  readonly first: number
  /** The heap counter before that record. */
  readonly heap: number
  /** The header up to the end of its metadata. */
  readonly header: Uint8Array
}

/** Consecutive slots, and heap bytes for them or for later ones. */
export interface RecordsFrame {
  readonly kind: 'records'
  readonly count: number
  readonly first: number
  /** The heap counter before these bytes. */
  readonly heap: number
  readonly slots: Uint8Array
  readonly payloads: Uint8Array
}

/** How the stream ended, after how many records. */
export interface EndFrame {
  readonly kind: 'end'
  readonly status: 'eos' | 'error'
  readonly committed: number
  readonly reason: string
}

export type BridgeFrame = HelloFrame | RecordsFrame | EndFrame

/** Decode one frame; BridgeFrameError when it is invalid. Its arrays are views into `bytes`. */
export function decodeFrame(bytes: Uint8Array): BridgeFrame {
  if (bytes.length < END_HEAD || bytes.length > FRAME_BYTES_MAX)
    throw new BridgeFrameError(
      `a frame has ${END_HEAD} to ${FRAME_BYTES_MAX} bytes, not ${bytes.length}`,
    )
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  switch (bytes[0]) {
    case HELLO:
      return decodeHello(bytes, view)
    case RECORDS:
      return decodeRecords(bytes, view)
    case END:
      return decodeEnd(bytes, view)
    default:
      throw new BridgeFrameError(`there is no frame of kind ${bytes[0]}`)
  }
}

/** The receiver's message when its readers have acknowledged the records below `upTo`. */
export function encodeAcknowledge(upTo: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(16)
  bytes[0] = ACKNOWLEDGE
  new DataView(bytes.buffer).setBigUint64(8, BigInt(upTo), true)
  return bytes
}

/** The receiver's message when a reader has signalled abort. */
export function encodeAbort(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(16)
  bytes[0] = ABORT
  return bytes
}

function decodeHello(bytes: Uint8Array, view: DataView): HelloFrame {
  const size = view.getUint32(4, true)
  requireZero(view.getUint16(2, true))
  if (bytes[1] !== FORMAT)
    throw new BridgeFrameError(`frame format ${bytes[1]} is not supported, only ${FORMAT}`)
  requireLength(bytes, HELLO_HEAD + size)
  if (size > HEADER_STATIC_MAX) throw new BridgeFrameError(`a header has no ${size} bytes`)
  return {
    kind: 'hello',
    first: counter(view, 8),
    heap: counter(view, 16),
    header: bytes.subarray(HELLO_HEAD),
  }
}

/** Does not check the length of the slots: only the bridge knows the stride. */
function decodeRecords(bytes: Uint8Array, view: DataView): RecordsFrame {
  if (bytes.length < RECORDS_HEAD) throw new BridgeFrameError('a frame is shorter than its head')
  requireZero(bytes[1]! | view.getUint16(2, true) | view.getUint32(28, true))
  const payloadBytes = view.getUint32(24, true)
  const split = bytes.length - payloadBytes
  if (split < RECORDS_HEAD) throw new BridgeFrameError('a frame has fewer bytes than it states')
  return {
    kind: 'records',
    count: view.getUint32(4, true),
    first: counter(view, 8),
    heap: counter(view, 16),
    slots: bytes.subarray(RECORDS_HEAD, split),
    payloads: bytes.subarray(split),
  }
}

function decodeEnd(bytes: Uint8Array, view: DataView): EndFrame {
  const size = view.getUint32(4, true)
  requireZero(view.getUint16(2, true))
  requireLength(bytes, END_HEAD + size)
  if (size > REASON_BYTES_MAX) throw new BridgeFrameError(`a reason has no ${size} bytes`)
  if (bytes[1] !== 2 && bytes[1] !== 3)
    throw new BridgeFrameError(`a stream does not end with status ${bytes[1]}`)
  return {
    kind: 'end',
    status: bytes[1] === 2 ? 'eos' : 'error',
    committed: counter(view, 8),
    reason: new TextDecoder().decode(bytes.slice(END_HEAD)),
  }
}

function counter(view: DataView, at: number): number {
  const value = view.getBigUint64(at, true)
  if (value > BigInt(Number.MAX_SAFE_INTEGER))
    throw new BridgeFrameError(
      `a counter of ${value} is beyond 2^53 - 1, which Numbers can count to`,
    )
  return Number(value)
}

function requireZero(value: number): void {
  if (value !== 0) throw new BridgeFrameError('bytes that must be zero are not')
}

function requireLength(bytes: Uint8Array, wanted: number): void {
  if (bytes.length !== wanted)
    throw new BridgeFrameError(`a frame states ${wanted} bytes, and has ${bytes.length}`)
}
