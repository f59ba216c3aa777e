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
const SLICE_ROWS = 32_768

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
  /** The batches, once; with `reuses` each may fill the arrays of the one before again. */
  batches: (reuses?: boolean) => Iterable<Batch>
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
    batches: (reuses = false) => batchesOf(messages, described, reuses),
  }
}

/** The streams that bytes have, one after the other. */
export function splitStreams(bytes: Uint8Array): Uint8Array[] {
  const found: Uint8Array[] = []
  for (let start = 0; start < bytes.length;) {
    const messages = messagesOf(bytes.subarray(start))
    let next = messages.next()
    while (!next.done) next = messages.next()
    if (next.value === 0) throw damaged('a stream has no beginning')
    found.push(bytes.subarray(start, start + next.value))
    start += next.value
  }
  return found
}

interface Message {
  kind: number
  header: Table
  body: Uint8Array
}

/** Yields the messages of a stream, and returns where it ends. */
function* messagesOf(bytes: Uint8Array): Generator<Message, number> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  while (at + 8 <= bytes.length) {
    if (view.getUint32(at, true) !== CONTINUATION) throw damaged('a message has no beginning')
    const size = view.getInt32(at + 4, true)
    if (size === 0) return at + 8
    const start = at + 8
    if (size < 0 || start + size > bytes.length) throw damaged('a message is cut')
    const message = Table.root(bytes.subarray(start, start + size))
    const header = message.table(2)
    const bodySize = message.int64(3)
    if (!header || bodySize < 0 || start + size + bodySize > bytes.length)
      throw damaged('a message is cut')
    const body = bytes.subarray(start + size, start + size + bodySize)
    yield { kind: message.int8(1), header, body }
    at = start + size + bodySize
  }
  return at
}

function* batchesOf(
  messages: Iterable<Message>,
  described: readonly { field: Field; layout: Layout }[],
  reuses: boolean,
): Generator<Batch> {
  const fields = described.map(({ field }) => field)
  const readers = described.map(({ layout }) => new ColumnReader(layout, reuses))
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
  /** The arrays of the batch before, if the next one may fill them. */
  private made: { rows?: number; values?: Float64Array | Int32Array; nulls?: Uint8Array } = {}

  constructor(
    private readonly layout: Layout,
    private readonly reuses: boolean,
  ) {
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
    if (!this.reuses || (this.made.rows ?? 0) < rows) this.made = { rows }
    const nulls = this.validity && this.nulls(this.validity.subarray(from >> 3), rows)
    const { layout, data } = this
    if (layout.isText) return this.texts(from, rows, nulls)
    if (layout.width === 8 && layout.type.name !== 'Float64') {
      const words = new Int32Array(data.buffer as ArrayBuffer, data.byteOffset + 8 * from, 2 * rows)
      return new WordColumn(words, nulls, layout.isSigned)
    }
    const start = layout.type.name === 'Bool' ? from >> 3 : from * layout.width
    return { values: this.values(rows, data.subarray(start)), nulls }
  }

  private nulls(validity: Uint8Array, rows: number): Uint8Array {
    const made = (this.made.nulls ??= new Uint8Array(this.made.rows ?? rows)).subarray(0, rows)
    for (let row = 0; row < rows; row += 1)
      made[row] = (((validity[row >> 3] as number) >> (row & 7)) & 1) ^ 1
    return made
  }

  private values(rows: number, data: Uint8Array): Values {
    const { type, width, isSigned } = this.layout
    if (type.name === 'Bool') return bitsOf(data, rows)
    const { byteOffset } = data
    const buffer = data.buffer as ArrayBuffer
    if (type.name === 'Float64') return new Float64Array(buffer, byteOffset, rows)
    const made = (this.made.values ??= new Float64Array(this.made.rows ?? rows)).subarray(
      0,
      rows,
    ) as Float64Array
    const Numbers =
      type.name === 'Float32'
        ? Float32Array
        : isSigned
          ? { 1: Int8Array, 2: Int16Array, 4: Int32Array }[width as 1 | 2 | 4]
          : { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[width as 1 | 2 | 4]
    made.set(new Numbers(buffer, byteOffset, rows))
    return made
  }

  private texts(from: number, rows: number, nulls: Uint8Array | null): Column {
    if (this.dictionary.isFull) this.dictionary = new Dictionary()
    const { dictionary, text } = this
    const codes = (this.made.values ??= new Int32Array(this.made.rows ?? rows)).subarray(
      0,
      rows,
    ) as Int32Array
    const ends = offsetsOf(this.data, this.layout.width, from, rows > 0 ? rows + 1 : 0)
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
  count: number,
): Int32Array | Float64Array {
  const buffer = data.buffer as ArrayBuffer
  const start = data.byteOffset + from * width
  if (width === 4) return new Int32Array(buffer, start, count)
  return Float64Array.from(new BigInt64Array(buffer, start, count), Number)
}

/** The bits as numbers. */
function bitsOf(bits: Uint8Array, rows: number): Uint8Array {
  const made = new Uint8Array(rows)
  for (let row = 0; row < rows; row += 1) made[row] = ((bits[row >> 3] as number) >> (row & 7)) & 1
  return made
}

/** Whole numbers of 64 bits; what needs them as an array gets doubles, unless one is beyond 2^53. */
class WordColumn implements Column {
  private made: Values | null = null

  constructor(
    readonly words: Int32Array<ArrayBuffer>,
    readonly nulls: Uint8Array | null,
    private readonly isSigned: boolean,
  ) {}

  get values(): Values {
    return (this.made ??= this.narrowed())
  }

  private narrowed(): Values {
    const { words, isSigned } = this
    const { buffer, byteOffset } = words
    const rows = words.length / 2
    const made = new Float64Array(rows)
    for (let row = 0; row < rows; row += 1) {
      const high = words[2 * row + 1] as number
      // One bit less than a double holds, so that a sum of two is exact too.
      if (high > 0xfffff || high < (isSigned ? -0x100000 : 0))
        return isSigned
          ? new BigInt64Array(buffer, byteOffset, rows)
          : new BigUint64Array(buffer, byteOffset, rows)
      made[row] = high * 4_294_967_296 + ((words[2 * row] as number) >>> 0)
    }
    return made
  }
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
