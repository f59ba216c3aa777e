/** Arrow IPC streams as batches of columns, for the types that the engine computes. */

import type { Batch, Column, Values } from '../engine/batch.ts'
import type { Field, Type, Unit } from '../engine/types.ts'
import { SennitError, Unsupported } from '../errors.ts'
import { Table } from './flatbuffer.ts'

const CONTINUATION = 0xffffffff
const SCHEMA = 1
const RECORD_BATCH = 3
const UNITS: readonly Unit[] = ['s', 'ms', 'us', 'ns']

/** Numbers of the types in the union `Type` of Arrow's Schema.fbs. */
const TYPE = { int: 2, float: 3, utf8: 5, bool: 6, date: 8, timestamp: 10, largeUtf8: 20 } as const

/** How the buffers of a column are read. */
interface Layout {
  type: Type
  /** Bytes of a value, or of an offset of a text. */
  width: number
  isText: boolean
  isSigned: boolean
}

/** The columns and batches of a stream. */
export interface ArrowStream {
  fields: Field[]
  batches: Iterable<Batch>
}

/**
 * Read a stream that is wholly in memory.
 *
 * @throws Unsupported for types that the engine does not compute.
 * @throws SennitError if the bytes are no stream.
 */
export function readArrow(bytes: Uint8Array): ArrowStream {
  const messages = messagesOf(bytes)
  const first = messages.next()
  if (first.done || first.value.kind !== SCHEMA) throw damaged('it does not begin with a schema')
  const described = first.value.header.tables(1).map(describe)
  return {
    fields: described.map(({ field }) => field),
    batches: batchesOf(messages, described),
  }
}

interface Message {
  kind: number
  header: Table
  body: Uint8Array
}

function* messagesOf(bytes: Uint8Array): Generator<Message, undefined> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  while (at + 8 <= bytes.length) {
    if (view.getUint32(at, true) !== CONTINUATION) throw damaged('a message has no beginning')
    const size = view.getInt32(at + 4, true)
    if (size === 0) return
    const start = at + 8
    if (size < 0 || start + size > bytes.length) throw damaged('a message is cut')
    const message = Table.root(bytes.subarray(start, start + size))
    const header = message.table(2)
    const bodySize = message.int64(3)
    if (!header || start + size + bodySize > bytes.length) throw damaged('a message is cut')
    const body = bytes.subarray(start + size, start + size + bodySize)
    yield { kind: message.int8(1), header, body }
    at = start + size + bodySize
  }
}

function* batchesOf(
  messages: Iterable<Message>,
  described: readonly { field: Field; layout: Layout }[],
): Generator<Batch> {
  for (const { kind, header, body } of messages) {
    if (kind !== RECORD_BATCH) throw new Unsupported('dictionaries in Arrow streams are not read')
    if (header.has(3)) throw new Unsupported('compressed Arrow streams are not read')
    const rows = header.int64(0)
    const nodes = header.pairs(1)
    const buffers = header.pairs(2).map(([offset, size]) => body.subarray(offset, offset + size))
    let next = 0
    const columns = described.map(({ layout }, at) => {
      const count = layout.isText ? 3 : 2
      const own = buffers.slice(next, next + count)
      next += count
      return column(layout, rows, nodes[at]?.[1] ?? 0, own)
    })
    yield { fields: described.map(({ field }) => field), columns, rows }
  }
}

function column(layout: Layout, rows: number, nullCount: number, buffers: Uint8Array[]): Column {
  const [validity, data, text] = buffers
  if (!data) throw damaged('a column has no buffers')
  const nulls = nullCount > 0 && validity ? unmarked(validity, rows) : null
  return { values: valuesOf(layout, rows, data, text), nulls }
}

/** 1 for each bit that is not set. */
function unmarked(bits: Uint8Array, rows: number): Uint8Array {
  const nulls = new Uint8Array(rows)
  for (let row = 0; row < rows; row += 1)
    nulls[row] = ((bits[row >> 3] ?? 0) >> (row & 7)) & 1 ? 0 : 1
  return nulls
}

function valuesOf(
  { type, width, isText, isSigned }: Layout,
  rows: number,
  data: Uint8Array,
  text: Uint8Array | undefined,
): Values {
  if (isText) return texts(data, text ?? new Uint8Array(0), width, rows)
  if (type.name === 'Bool') return unmarked(data, rows).map((bit) => 1 - bit)
  if (data.byteLength < rows * width) throw damaged('a column is cut')
  // Buffers are aligned in a stream, but a stream need not be in memory.
  const own = data.byteOffset % 8 === 0 ? data : data.slice()
  const { byteOffset } = own
  const buffer = own.buffer as ArrayBuffer
  if (type.name === 'Float64') return new Float64Array(buffer, byteOffset, rows)
  if (type.name === 'Float32') return Float64Array.from(new Float32Array(buffer, byteOffset, rows))
  if (width === 8) return narrowed(own, rows, isSigned)
  const arrays = isSigned
    ? { 1: Int8Array, 2: Int16Array, 4: Int32Array }
    : { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }
  const Integers = arrays[width as 1 | 2 | 4]
  return Float64Array.from(new Integers(buffer, byteOffset, rows))
}

/** Whole numbers of 64 bits as doubles, unless one is beyond 2^53. */
function narrowed(data: Uint8Array, rows: number, isSigned: boolean): Values {
  const { byteOffset } = data
  const buffer = data.buffer as ArrayBuffer
  const lows = new Uint32Array(buffer, byteOffset, 2 * rows)
  const highs = new Int32Array(buffer, byteOffset, 2 * rows)
  const made = new Float64Array(rows)
  for (let row = 0; row < rows; row += 1) {
    const high = (isSigned ? highs[2 * row + 1] : lows[2 * row + 1]) ?? 0
    // One bit less than a double holds, so that a sum of two is exact too.
    if (high > 0xfffff || high < -0x100000)
      return isSigned
        ? new BigInt64Array(buffer, byteOffset, rows)
        : new BigUint64Array(buffer, byteOffset, rows)
    made[row] = high * 4_294_967_296 + (lows[2 * row] ?? 0)
  }
  return made
}

/** Texts; a column often has few different ones, so that the last ones are kept by their bytes. */
function texts(offsets: Uint8Array, data: Uint8Array, width: number, rows: number): string[] {
  if (rows === 0) return []
  const view = new DataView(offsets.buffer, offsets.byteOffset, offsets.byteLength)
  const decoder = new TextDecoder('utf-8', { fatal: true })
  const known = new Map<number, { start: number; end: number; text: string }>()
  const offset = (row: number): number =>
    width === 4 ? view.getInt32(4 * row, true) : Number(view.getBigInt64(8 * row, true))
  const made = new Array<string>(rows)
  for (let row = 0; row < rows; row += 1) {
    const [start, end] = [offset(row), offset(row + 1)]
    let hash = end - start
    for (let at = start; at < end; at += 1) hash = (Math.imul(hash, 31) + (data[at] ?? 0)) | 0
    const found = known.get(hash)
    if (found && sameBytes(data, found, start, end)) {
      made[row] = found.text
      continue
    }
    const text = decoder.decode(data.subarray(start, end))
    if (known.size < 65_536) known.set(hash, { start, end, text })
    made[row] = text
  }
  return made
}

function sameBytes(
  data: Uint8Array,
  found: { start: number; end: number },
  start: number,
  end: number,
): boolean {
  if (found.end - found.start !== end - start) return false
  for (let at = 0; at < end - start; at += 1)
    if (data[found.start + at] !== data[start + at]) return false
  return true
}

function describe(field: Table): { field: Field; layout: Layout } {
  const name = field.text(0) ?? ''
  if (field.has(4)) throw new Unsupported(`column ${name}: dictionaries are not read`)
  const layout = layoutOf(name, field.int8(2), field.table(3))
  return { field: { name, type: layout.type }, layout }
}

function layoutOf(name: string, kind: number, type: Table | null): Layout {
  const plain = { isText: false, isSigned: true }
  switch (kind) {
    case TYPE.int: {
      const bits = type?.int32(0) ?? 0
      const isSigned = type?.int8(1) === 1
      const text = `${isSigned ? 'Int' : 'UInt'}${bits}` as Type['name']
      return { type: { name: text }, width: bits / 8, isText: false, isSigned }
    }
    case TYPE.float: {
      const precision = type?.int16(0) ?? 0
      if (precision === 1) return { ...plain, type: { name: 'Float32' }, width: 4 }
      if (precision === 2) return { ...plain, type: { name: 'Float64' }, width: 8 }
      break
    }
    case TYPE.utf8:
      return { ...plain, type: { name: 'Utf8' }, width: 4, isText: true }
    case TYPE.largeUtf8:
      return { ...plain, type: { name: 'Utf8' }, width: 8, isText: true }
    case TYPE.bool:
      return { ...plain, type: { name: 'Bool' }, width: 1 }
    case TYPE.date:
      if (type?.int16(0, 1) === 0) return { ...plain, type: { name: 'Date' }, width: 4 }
      break
    case TYPE.timestamp: {
      const unit = UNITS[type?.int16(0) ?? 0] ?? 's'
      const zone = type?.text(1) ?? null
      const stamp: Type = { name: 'Timestamp', unit, ...(zone !== null && { zone }) }
      return { ...plain, type: stamp, width: 8 }
    }
  }
  throw new Unsupported(`column ${name}: values of its type are not computed in JavaScript`)
}

function damaged(reason: string): SennitError {
  return new SennitError(`bytes that are no Arrow stream: ${reason}`, { code: 'bad-input' })
}
