/** Filters over the records of a ring: predicates, bitsets, ranges, search in sorted fields. */

import type { RecordCursor } from './cursor.js'
import type { StrandMap } from './header.js'
import { FIELD_TYPES, type FieldType } from './types.js'

type Value = number | bigint | string | boolean

/** Whether a value matches; null never does. */
export type Predicate = (value: Value) => boolean

/** One bit for each record from `start` on, in words of 32, least significant first. */
export interface Bitset {
  readonly start: number
  readonly length: number
  readonly words: Uint32Array
}

/** The least and greatest value among some records; null when no record has a value. */
export type Range = { readonly min: number | bigint; readonly max: number | bigint } | null

/** Values from `low` to `high`, inclusive; null: no bound on that side. */
export function between(
  low: number | bigint | string | null,
  high: number | bigint | string | null,
): Predicate {
  return (value) => (low === null || value >= low) && (high === null || value <= high)
}

/** Values equal to `wanted`; a Number and a BigInt of the same value are equal. */
export function eq(wanted: Value): Predicate {
  return oneOf([wanted])
}

/** Values equal to any of `wanted`. */
export function oneOf(wanted: Iterable<Value>): Predicate {
  const values = new Set<Value>()
  for (const value of wanted) {
    values.add(value)
    if (typeof value === 'number' && Number.isInteger(value)) values.add(BigInt(value))
    if (typeof value === 'bigint' && Number.isSafeInteger(Number(value))) values.add(Number(value))
  }
  return (value) => values.has(value)
}

/** The records that are in every one of the bitsets, which must be over the same records. */
export function intersect(first: Bitset, ...others: readonly Bitset[]): Bitset {
  const words = first.words.slice()
  for (const other of others) {
    if (other.start !== first.start || other.length !== first.length)
      throw new RangeError('these bitsets are not over the same records')
    for (let at = 0; at < words.length; at += 1) words[at]! &= other.words[at]!
  }
  return { start: first.start, length: first.length, words }
}

/** How many records are in a bitset. */
export function popcount(bitset: Bitset): number {
  let count = 0
  for (let word of bitset.words) {
    word -= (word >>> 1) & 0x55555555
    word = (word & 0x33333333) + ((word >>> 2) & 0x33333333)
    count += Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
  }
  return count
}

/** Call `visit` with the number of every record in a bitset, in order. */
export function forEachSet(bitset: Bitset, visit: (seq: number) => void): void {
  bitset.words.forEach((word, at) => {
    for (let left = word; left !== 0; left &= left - 1)
      visit(bitset.start + 32 * at + 31 - Math.clz32(left & -left))
  })
}

export function filterRecords(
  cursor: RecordCursor,
  { schema }: StrandMap,
  field: string,
  predicate: Predicate,
  start: number,
  stop: number,
): Bitset {
  const type = schema.fields.find((each) => each.name === field)?.type
  if (type === undefined || !isOrdered(type))
    throw new TypeError(`there is no field '${field}' whose values can be compared`)
  const words = new Uint32Array(Math.ceil((stop - start) / 32))
  for (let seq = start; seq < stop; seq += 1) {
    if (!cursor.seek(seq)) throw new RangeError(`record ${seq} cannot be read any more`)
    const value = cursor.get(field)
    if (value !== null && predicate(value as Value))
      words[(seq - start) >>> 5]! |= 1 << ((seq - start) & 31)
  }
  return { start, length: stop - start, words }
}

export function rangesOf(
  cursor: RecordCursor,
  { schema }: StrandMap,
  bitset: Bitset,
  fields?: readonly string[],
): Record<string, Range> {
  const chosen = fields ?? schema.fields.filter((f) => isNumeric(f.type)).map((f) => f.name)
  for (const name of chosen)
    if (!schema.fields.some((field) => field.name === name && isNumeric(field.type)))
      throw new TypeError(`there is no numeric field '${name}'`)
  const ranges: Record<string, Range> = Object.fromEntries(chosen.map((name) => [name, null]))
  forEachSet(bitset, (seq) => {
    if (!cursor.seek(seq)) throw new RangeError(`record ${seq} cannot be read any more`)
    for (const name of chosen) {
      const value = cursor.get(name) as number | bigint | null
      if (value !== null) ranges[name] = widen(ranges[name]!, value)
    }
  })
  return ranges
}

export function findFirst(
  cursor: RecordCursor,
  { schema }: StrandMap,
  name: string,
  value: number | bigint | string,
  start: number,
  stop: number,
): number {
  const field = schema.fields.find((each) => each.name === name)
  if (field === undefined || field.order === null || !isOrdered(field.type))
    throw new TypeError(`'${name}' is no field that is declared as sorted`)
  let low = start
  let high = stop
  while (low < high) {
    const middle = low + Math.floor((high - low) / 2)
    if (!cursor.seek(middle)) throw new RangeError(`record ${middle} cannot be read any more`)
    const found = cursor.get(name) as typeof value | null
    if (found === null) throw new TypeError(`record ${middle} has no ${name}, so nothing is sorted`)
    if (field.order === 'ascending' ? found < value : found > value) low = middle + 1
    else high = middle
  }
  return low
}

function isNumeric(type: FieldType): boolean {
  const { kind } = FIELD_TYPES[type]
  return kind === 'integer' || kind === 'float'
}

function isOrdered(type: FieldType): boolean {
  const { kind } = FIELD_TYPES[type]
  return kind !== 'json' && kind !== 'bytes' && kind !== 'array'
}

function widen(range: Range, value: number | bigint): Range {
  if (range === null) return { min: value, max: value }
  if (Number.isNaN(value)) return range
  return {
    min: value < range.min || Number.isNaN(range.min) ? value : range.min,
    max: value > range.max || Number.isNaN(range.max) ? value : range.max,
  }
}
