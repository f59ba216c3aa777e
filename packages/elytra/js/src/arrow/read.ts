/** Arrow IPC streams as batches of columns, for the types that the engine computes. */

import type { Batch, Column, Values } from '../engine/batch.ts'
import { Dictionary } from '../engine/dictionary.ts'
import type { Field, Type, Unit } from '../engine/types.ts'
import { SennitError, Unsupported } from '../errors.ts'
import { Table } from './flatbuffer.ts'

const CONTINUATION = 0xffffffff
const SCHEMA = 1
const RECORD_BATCH = 3
const UNITS: readonly Unit[] = ['s', 'ms', 'us', 'ns']

/** Rows of a batch of the stream that are computed at once: their columns fit into a core's cache. */
const SLICE_ROWS = 16_384

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
  const fields = described.map(({ field }) => field)
  const readers = described.map(({ layout }) => new ColumnReader(layout))
  for (const { kind, header, body } of messages) {
    if (kind !== RECORD_BATCH) throw new Unsupported('dictionaries in Arrow streams are not read')
    if (header.has(3)) throw new Unsupported('compressed Arrow streams are not read')
    const rows = header.int64(0)
    const nodes = header.pairs(1)
    const buffers = header.pairs(2).map(([offset, size]) => body.subarray(offset, offset + size))
    let next = 0
    readers.forEach((reader, at) => {
      const own = buffers.slice(next, next + reader.buffers)
      next += own.length
      reader.start(rows, nodes[at]?.[1] ?? 0, own)
    })
    for (let from = 0; from === 0 || from < rows; from += SLICE_ROWS) {
      const count = Math.min(SLICE_ROWS, rows - from)
      yield { fields, columns: readers.map((reader) => reader.slice(from, count)), rows: count }
    }
  }
}

/** Reads one column: a batch of the stream, then slices of its rows. */
class ColumnReader {
  readonly buffers: number
  private dictionary = new Dictionary()
  private validity: Uint8Array | null = null
  private data: Uint8Array = new Uint8Array(0)
  private text: Uint8Array = new Uint8Array(0)

  constructor(private readonly layout: Layout) {
    this.buffers = layout.isText ? 3 : 2
  }

  start(rows: number, nullCount: number, buffers: readonly Uint8Array[]): void {
    const { isText, type, width } = this.layout
    const [validity, data, text] = buffers
    if (!data) throw damaged('a column has no buffers')
    this.validity = nullCount > 0 && validity ? validity : null
    // Buffers are aligned in a stream, but a stream need not be in memory.
    this.data = data.byteOffset % 8 === 0 ? data : data.slice()
    this.text = text ?? new Uint8Array(0)
    const needed = type.name === 'Bool' ? Math.ceil(rows / 8) : width * (rows + Number(isText))
    // Offsets may be left out where there are no rows.
    if (rows > 0 && data.length < needed) throw damaged('a column is cut')
    if (this.validity && this.validity.length < Math.ceil(rows / 8))
      throw damaged('a column is cut')
  }

  /** Rows from a multiple of `SLICE_ROWS` on. */
  slice(from: number, rows: number): Column {
    const nulls = this.validity ? unmarked(this.validity.subarray(from >> 3), rows) : null
    const { layout, data } = this
    if (layout.isText) return this.texts(from, rows, nulls)
    const start = layout.type.name === 'Bool' ? from >> 3 : from * layout.width
    return { values: valuesOf(layout, rows, data.subarray(start)), nulls }
  }

  private texts(from: number, rows: number, nulls: Uint8Array | null): Column {
    if (this.dictionary.isFull) this.dictionary = new Dictionary()
    const { dictionary, text } = this
    const codes = new Int32Array(rows)
    const ends = rows > 0 ? offsetsOf(this.data, this.layout.width, from, rows) : codes
    for (let row = 0; row < rows; row += 1) {
      const start = ends[row] as number
      const end = ends[row + 1] as number
      if (start < 0 || end < start || end > text.length) throw damaged('a text is cut')
      const code = dictionary.codeOf(text, start, end)
      if (code < 0) throw damaged('a text is not UTF-8')
      codes[row] = code
    }
    return { values: codes, nulls, dictionary }
  }
}

/** Where texts begin, and the last one ends. */
function offsetsOf(
  data: Uint8Array,
  width: number,
  from: number,
  rows: number,
): Int32Array | Float64Array {
  const buffer = data.buffer as ArrayBuffer
  const start = data.byteOffset + from * width
  if (width === 4) return new Int32Array(buffer, start, rows + 1)
  return Float64Array.from(new BigInt64Array(buffer, start, rows + 1), Number)
}

/** 1 for each bit that is not set. */
function unmarked(bits: Uint8Array, rows: number): Uint8Array {
  const nulls = new Uint8Array(rows)
  for (let row = 0; row < rows; row += 1)
    nulls[row] = (((bits[row >> 3] as number) >> (row & 7)) & 1) ^ 1
  return nulls
}

function valuesOf({ type, width, isSigned }: Layout, rows: number, data: Uint8Array): Values {
  if (type.name === 'Bool') return unmarked(data, rows).map((bit) => 1 - bit)
  const { byteOffset } = data
  const buffer = data.buffer as ArrayBuffer
  if (type.name === 'Float64') return new Float64Array(buffer, byteOffset, rows)
  if (type.name === 'Float32') return Float64Array.from(new Float32Array(buffer, byteOffset, rows))
  if (width === 8) return narrowed(data, rows, isSigned)
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
    const high = (isSigned ? highs[2 * row + 1] : lows[2 * row + 1]) as number
    // One bit less than a double holds, so that a sum of two is exact too.
    if (high > 0xfffff || high < -0x100000)
      return isSigned
        ? new BigInt64Array(buffer, byteOffset, rows)
        : new BigUint64Array(buffer, byteOffset, rows)
    made[row] = high * 4_294_967_296 + (lows[2 * row] as number)
  }
  return made
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
