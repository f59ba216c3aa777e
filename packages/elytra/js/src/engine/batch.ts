/** Batches of rows: columns of equal length. */

import type { Dictionary } from './dictionary.ts'
import type { Value } from './literals.ts'
import { isWide, type Field, type Type } from './types.ts'

/**
 * The values of a column: whole numbers of 64 bits are doubles, or bigints if one is beyond 2^53;
 * texts are strings, or the codes of a dictionary.
 */
export type Values =
  Float64Array | BigInt64Array | BigUint64Array | Uint8Array | Int32Array | string[]

export interface Column {
  values: Values
  /** 1 where the value is NULL; null where none is. */
  nulls: Uint8Array | null
  /** The texts of the codes that `values` has. */
  dictionary?: Dictionary
  /**
   * Whole numbers of 64 bits as two words each, the lower one first: loops read these, so that
   * nothing is made of rows that a filter drops.
   */
  words?: Int32Array
}

export interface Batch {
  fields: readonly Field[]
  columns: readonly Column[]
  rows: number
}

/** Room for values of a type. */
export function room(type: Type, rows: number, isBig: boolean): Values {
  if (type.name === 'Utf8') return new Array<string>(rows).fill('')
  if (type.name === 'Bool') return new Uint8Array(rows)
  if (!isBig || !isWide(type)) return new Float64Array(rows)
  return type.name === 'UInt64' ? new BigUint64Array(rows) : new BigInt64Array(rows)
}

/** A column of values, for tests and small inputs. */
export function columnOf(type: Type, values: readonly (Value | null)[]): Column {
  const isBig = isWide(type) && values.some((value) => typeof value === 'bigint')
  const stored = room(type, values.length, isBig)
  const nulls = values.includes(null) ? new Uint8Array(values.length) : null
  values.forEach((value, at) => {
    if (value === null) {
      if (nulls) nulls[at] = 1
    } else if (stored instanceof BigInt64Array || stored instanceof BigUint64Array) {
      stored[at] = BigInt(value)
    } else {
      ;(stored as (string | number)[])[at] = typeof value === 'string' ? value : Number(value)
    }
  })
  return { values: stored, nulls }
}

/** One value of a column. */
export function valueAt(column: Column, type: Type, row: number): Value | null {
  const { values, nulls, dictionary } = column
  if (nulls?.[row]) return null
  if (dictionary) return dictionary.text(values[row] as number)
  const value = values[row] as Value
  return type.name === 'Bool' ? Boolean(value) : value
}

/** The first rows of a batch, after skipping some. */
export function sliced(batch: Batch, offset: number, rows: number): Batch {
  const end = Math.min(batch.rows, offset + rows)
  const columns = batch.columns.map(({ values, nulls, dictionary }) => ({
    values: values.slice(offset, end),
    nulls: nulls?.slice(offset, end) ?? null,
    ...(dictionary && { dictionary }),
  }))
  return { ...batch, columns, rows: Math.max(0, end - offset) }
}
