/** Columns as an Arrow IPC stream with one batch. */

import type { Value } from '../engine/literals.ts'
import { Unsupported } from '../errors.ts'
import { bits, columnBuffers, nullCountOf, type TypedColumn } from './columnBuffers.ts'
import { writeBuffer, type Members } from './flatbuffer.ts'

/** A column to write, as a list; `type` is the name of its type in plans. */
export interface OutputColumn {
  name: string
  type: string
  values: readonly (Value | Uint8Array | null)[]
}

const CONTINUATION = 0xffffffff
const VERSION_5 = 4
const SCHEMA = 1
const RECORD_BATCH = 3

/** A type as Arrow describes it, and how its values become bytes. */
interface Form {
  kind: number
  members: Members
  /** Bytes of a value; 0 for bits, -1 for texts and binaries. */
  width: number
  put: (view: DataView, at: number, value: Value) => void
}

/**
 * The bytes of a stream.
 *
 * @throws Unsupported for a type that is not written.
 */
export function writeArrow(
  columns: readonly (OutputColumn | TypedColumn)[],
  rows: number,
): Uint8Array<ArrayBuffer> {
  const forms = columns.map(({ type }) => formOf(type))
  const fields = columns.map(({ name }, at) => fieldOf(name, forms[at] as Form))
  const schema = message(SCHEMA, { 1: { tables: fields } }, 0)
  const buffers: Uint8Array[] = []
  const places: [number, number][] = []
  const nodes: [number, number][] = []
  let size = 0
  columns.forEach((column, at) => {
    const isTyped = 'column' in column
    const nullCount = isTyped
      ? nullCountOf(column.column, rows)
      : column.values.filter((value) => value === null).length
    nodes.push([rows, nullCount])
    const own = isTyped ? columnBuffers(column, rows) : buffersOf(forms[at] as Form, column.values)
    for (const buffer of own) {
      places.push([size, buffer.length])
      buffers.push(buffer)
      size += padded(buffer.length)
    }
  })
  const batch = message(
    RECORD_BATCH,
    { 0: { size: 8, value: rows }, 1: { pairs: nodes }, 2: { pairs: places } },
    size,
  )
  const end = new Uint8Array(8)
  new DataView(end.buffer).setUint32(0, CONTINUATION, true)
  return joined([schema, batch, ...buffers.map(pad), end])
}

function message(kind: number, header: Members, bodyBytes: number): Uint8Array {
  const metadata = writeBuffer({
    0: { size: 2, value: VERSION_5 },
    1: { size: 1, value: kind },
    2: { table: header },
    3: { size: 8, value: bodyBytes },
  })
  const made = new Uint8Array(8 + metadata.length)
  const view = new DataView(made.buffer)
  view.setUint32(0, CONTINUATION, true)
  view.setInt32(4, metadata.length, true)
  made.set(metadata, 8)
  return made
}

function fieldOf(name: string, { kind, members }: Form): Members {
  return {
    0: { text: name },
    1: { size: 1, value: 1 },
    2: { size: 1, value: kind },
    3: { table: members },
    5: { tables: [] },
  }
}

function buffersOf(form: Form, values: OutputColumn['values']): Uint8Array[] {
  const validity = bits(values.length, (row) => values[row] !== null)
  if (form.width === 0) return [validity, bits(values.length, (row) => values[row] === true)]
  if (form.width < 0) return [validity, ...textBuffers(values)]
  const data = new Uint8Array(form.width * values.length)
  const view = new DataView(data.buffer)
  values.forEach((value, row) => {
    if (value !== null && !(value instanceof Uint8Array)) form.put(view, form.width * row, value)
  })
  return [validity, data]
}

function textBuffers(values: OutputColumn['values']): [Uint8Array, Uint8Array] {
  const encoder = new TextEncoder()
  const pieces = values.map((value) =>
    value === null
      ? new Uint8Array(0)
      : value instanceof Uint8Array
        ? value
        : encoder.encode(String(value)),
  )
  const offsets = new Int32Array(values.length + 1)
  pieces.forEach((piece, row) => {
    offsets[row + 1] = (offsets[row] ?? 0) + piece.length
  })
  return [new Uint8Array(offsets.buffer), joined(pieces)]
}

function formOf(type: string): Form {
  const integer = /^(U?)Int(8|16|32|64)$/.exec(type)
  if (integer) return integerForm(Number(integer[2]), integer[1] === '')
  const float = /^Float(32|64)$/.exec(type)
  if (float) return floatForm(Number(float[1]))
  const decimal = /^Decimal\((\d+),(\d+)\)$/.exec(type)
  if (decimal) return decimalForm(Number(decimal[1]), Number(decimal[2]))
  const stamp = /^Timestamp\((s|ms|us|ns)(?:,(.+))?\)$/.exec(type)
  if (stamp) {
    const unit = { size: 2, value: ['s', 'ms', 'us', 'ns'].indexOf(stamp[1] ?? 's') } as const
    const members: Members = { 0: unit }
    if (stamp[2] !== undefined) members[1] = { text: stamp[2] }
    return { kind: 10, members, width: 8, put: put64 }
  }
  switch (type) {
    case 'Utf8':
      return { kind: 5, members: {}, width: -1, put: () => undefined }
    case 'Binary':
      return { kind: 4, members: {}, width: -1, put: () => undefined }
    case 'Bool':
      return { kind: 6, members: {}, width: 0, put: () => undefined }
    case 'Date':
      return {
        kind: 8,
        members: { 0: { size: 2, value: 0 } },
        width: 4,
        put: (view, at, value) => view.setInt32(at, Number(value), true),
      }
  }
  throw new Unsupported(`values of type ${type} are not written`)
}

function put64(view: DataView, at: number, value: Value): void {
  view.setBigInt64(at, BigInt.asIntN(64, BigInt(value)), true)
}

function integerForm(bitWidth: number, isSigned: boolean): Form {
  const members: Members = {
    0: { size: 4, value: bitWidth },
    1: { size: 1, value: isSigned ? 1 : 0 },
  }
  const width = bitWidth / 8
  if (width === 8) return { kind: 2, members, width, put: put64 }
  return {
    kind: 2,
    members,
    width,
    put: (view, at, value) => {
      if (width === 1) view.setInt8(at, Number(value))
      else if (width === 2) view.setInt16(at, Number(value), true)
      else view.setInt32(at, Number(value), true)
    },
  }
}

function floatForm(bitWidth: number): Form {
  const isDouble = bitWidth === 64
  return {
    kind: 3,
    members: { 0: { size: 2, value: isDouble ? 2 : 1 } },
    width: bitWidth / 8,
    put: (view, at, value) =>
      isDouble
        ? view.setFloat64(at, Number(value), true)
        : view.setFloat32(at, Number(value), true),
  }
}

function decimalForm(precision: number, scale: number): Form {
  return {
    kind: 7,
    members: {
      0: { size: 4, value: precision },
      1: { size: 4, value: scale },
      2: { size: 4, value: 128 },
    },
    width: 16,
    put: (view, at, value) => {
      const whole = BigInt(value)
      view.setBigUint64(at, BigInt.asUintN(64, whole), true)
      view.setBigInt64(at + 8, BigInt.asIntN(64, whole >> 64n), true)
    },
  }
}

function padded(size: number): number {
  return Math.ceil(size / 8) * 8
}

function pad(bytes: Uint8Array): Uint8Array {
  if (bytes.length % 8 === 0) return bytes
  const made = new Uint8Array(padded(bytes.length))
  made.set(bytes)
  return made
}

function joined(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const made = new Uint8Array(pieces.reduce((total, piece) => total + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    made.set(piece, at)
    at += piece.length
  }
  return made
}
