/** Batches of the engine as buffers for a sandbox, and what a sandbox returns as columns. */

import { valueAt, type Batch, type Column } from '../engine/batch.ts'
import { columnFrom } from '../engine/groups.ts'
import { readLiteral, shownValue, type Value } from '../engine/literals.ts'
import {
  integerRange,
  isFloat,
  isInteger,
  typeText,
  type Field,
  type Type,
} from '../engine/types.ts'
import { SennitError } from '../errors.ts'
import type { Kind, Packed } from './messages.ts'

/** What a function returns for a type: dates and times are texts, as in results. */
export function kindOf(type: Type): Kind {
  if (isFloat(type)) return 'float'
  if (isInteger(type)) return 'int'
  return type.name === 'Bool' ? 'bool' : 'text'
}

/** The columns of a batch in buffers of their own, to be transferred. */
export function packBatch({ fields, columns, rows }: Batch): Packed[] {
  return fields.map(({ type }, at) => {
    const column = columns[at]
    if (!column) throw new Error('a batch without a column')
    const nulls = column.nulls ? column.nulls.slice().buffer : null
    return { ...packValues(column, type, rows), nulls }
  })
}

function packValues(column: Column, type: Type, rows: number): Omit<Packed, 'nulls'> {
  const { values } = column
  if (kindOf(type) === 'text') {
    const texts = Array.from({ length: rows }, (_, row) =>
      String(shownValue(valueAt(column, type, row), type) ?? ''),
    )
    let end = 0
    const ends = Uint32Array.from(texts, (text) => (end += text.length))
    const bytes = new TextEncoder().encode(texts.join(''))
    return { form: 'text', values: bytes.buffer, ends: ends.buffer }
  }
  const copy = (values as Float64Array).slice(0, rows).buffer as ArrayBuffer
  if (values instanceof BigInt64Array) return { form: 'int64', values: copy, ends: null }
  if (values instanceof BigUint64Array) return { form: 'uint64', values: copy, ends: null }
  return { form: type.name === 'Bool' ? 'bool' : 'double', values: copy, ends: null }
}

/**
 * What a sandbox has returned, as columns of these types.
 *
 * @throws SennitError if buffers have another size or a value is not one of its column's type: the
 *   function shares its thread with the code that packs, and may send anything.
 */
export function unpackColumns(
  packed: readonly Packed[],
  fields: readonly Field[],
  rows: number,
): Column[] {
  if (packed.length !== fields.length) throw broken('another number of columns')
  return fields.map(({ name, type }, at) => {
    const column = packed[at]
    if (!column) throw new Error('a column without its buffers')
    const nulls = column.nulls ? new Uint8Array(column.nulls) : null
    if (nulls && nulls.length !== rows) throw broken('another number of rows')
    const read = readerOf(column, type, rows)
    try {
      return columnFrom(
        type,
        Array.from({ length: rows }, (_, row) => (nulls?.[row] ? null : read(row))),
      )
    } catch (error) {
      throw new SennitError(`column ${JSON.stringify(name)}: ${(error as Error).message}`, {
        code: 'step-failed',
      })
    }
  })
}

function readerOf(
  { form, values, ends }: Packed,
  type: Type,
  rows: number,
): (row: number) => Value {
  if (form === 'text') {
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(values)
    const stops = new Uint32Array(checkedBytes(ends, 4 * rows))
    return (row) => {
      const [from, to] = [row === 0 ? 0 : (stops[row - 1] ?? 0), stops[row] ?? 0]
      if (from > to || to > text.length) throw broken('a text outside of its buffer')
      return readText(text.slice(from, to), type)
    }
  }
  if (form === 'bool' && type.name === 'Bool') {
    const bytes = new Uint8Array(checkedBytes(values, rows))
    return (row) => bytes[row] === 1
  }
  const numbers = new Float64Array(checkedBytes(values, 8 * rows))
  if (form !== 'double' || !(isFloat(type) || isInteger(type))) throw broken('another type')
  if (type.name === 'Float32') return (row) => Math.fround(numbers[row] ?? 0)
  if (isFloat(type)) return (row) => numbers[row] ?? 0
  return (row) => inRange(numbers[row] ?? 0, type)
}

function readText(text: string, type: Type): Value {
  if (type.name === 'Utf8') return text
  if (isFloat(type) || type.name === 'Bool') throw broken('another type')
  const value = readLiteral(text, type)
  if (value === null) throw broken('no value')
  return value
}

function inRange(value: number, type: Type): number {
  const [least, most] = integerRange(type)
  if (Number.isSafeInteger(value) && BigInt(value) >= least && BigInt(value) <= most) return value
  throw new SennitError(`${value} is not a value of type ${typeText(type)}`, {
    code: 'step-failed',
  })
}

function checkedBytes(buffer: ArrayBuffer | null, bytes: number): ArrayBuffer {
  if (buffer?.byteLength !== bytes) throw broken('buffers of another size')
  return buffer
}

function broken(what: string): SennitError {
  return new SennitError(`the sandbox has returned ${what}`, { code: 'step-failed' })
}
