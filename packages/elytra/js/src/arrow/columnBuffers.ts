/** The buffers of a column of the engine in the layout of Arrow, made from its typed arrays. */

import type { Column } from '../engine/batch.ts'
import { isWide, parseType, type Type } from '../engine/types.ts'

/** A column as the engine has it; `type` is the name of its type in plans. */
export interface TypedColumn {
  name: string
  type: string
  column: Column
}

/** How many rows of a column are NULL. */
export function nullCountOf({ nulls }: Column, rows: number): number {
  let count = 0
  for (let row = 0; nulls && row < rows; row += 1) count += nulls[row] as number
  return count
}

/** Validity and values; offsets come in front of the bytes of texts. Rows that are NULL hold 0. */
export function columnBuffers({ type, column }: TypedColumn, rows: number): Uint8Array[] {
  const kind = parseType(type)
  const { nulls } = column
  const validity = bits(rows, (row) => !nulls?.[row])
  if (kind.name === 'Utf8') return [validity, ...textBuffers(column, rows)]
  if (kind.name === 'Bool')
    return [validity, bits(rows, (row) => column.values[row] === 1 && !nulls?.[row])]
  const made = isWide(kind) ? wideValues(column, rows) : narrowValues(kind, column, rows)
  return [validity, new Uint8Array(made.buffer)]
}

/** One bit for each row. */
export function bits(rows: number, isSet: (row: number) => boolean): Uint8Array {
  const made = new Uint8Array(Math.ceil(rows / 8))
  for (let row = 0; row < rows; row += 1)
    if (isSet(row)) made[row >> 3] = (made[row >> 3] as number) | (1 << (row & 7))
  return made
}

function narrowValues(
  { name }: Type,
  { values, nulls }: Column,
  rows: number,
): Float64Array | Float32Array | Int32Array | Uint32Array | Int16Array | Uint16Array | Int8Array {
  const numbers = (values as Float64Array).slice(0, rows)
  if (nulls) for (let row = 0; row < rows; row += 1) if (nulls[row]) numbers[row] = 0
  switch (name) {
    case 'Float64':
      return numbers
    case 'Float32':
      return Float32Array.from(numbers)
    case 'UInt32':
      return Uint32Array.from(numbers)
    case 'Int16':
      return Int16Array.from(numbers)
    case 'UInt16':
      return Uint16Array.from(numbers)
    case 'Int8':
    case 'UInt8':
      return Int8Array.from(numbers) // the same bits for either
  }
  return Int32Array.from(numbers) // Int32 and Date
}

/** Two words for each whole number of 64 bits, in the order of the file: the lower one first. */
function wideValues({ values, nulls }: Column, rows: number): Uint32Array {
  if (values instanceof BigInt64Array || values instanceof BigUint64Array) {
    const whole = values.slice(0, rows)
    if (nulls) for (let row = 0; row < rows; row += 1) if (nulls[row]) whole[row] = 0n
    return new Uint32Array(whole.buffer)
  }
  const words = new Uint32Array(2 * rows)
  for (let row = 0; row < rows; row += 1) {
    const value = nulls?.[row] ? 0 : (values[row] as number)
    const high = Math.floor(value / 4_294_967_296)
    words[2 * row] = value - high * 4_294_967_296
    words[2 * row + 1] = high
  }
  return words
}

function textBuffers({ values, nulls, dictionary }: Column, rows: number): Uint8Array[] {
  const offsets = new Int32Array(rows + 1)
  const encoder = new TextEncoder()
  let bytes = new Uint8Array(16 * rows)
  let size = 0
  for (let row = 0; row < rows; row += 1) {
    if (!nulls?.[row]) {
      const text = dictionary ? dictionary.text(values[row] as number) : (values[row] as string)
      // A unit of UTF-16 has at most three bytes.
      const needed = size + 3 * text.length
      if (needed > bytes.length) {
        const larger = new Uint8Array(2 * needed)
        larger.set(bytes.subarray(0, size))
        bytes = larger
      }
      size += encoder.encodeInto(text, bytes.subarray(size)).written
    }
    offsets[row + 1] = size
  }
  return [new Uint8Array(offsets.buffer), bytes.subarray(0, size)]
}
