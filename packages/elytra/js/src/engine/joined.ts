/** Batches as one, and rows in another order. */

import { room, valueAt, type Batch, type Column, type Values } from './batch.ts'
import { columnFrom } from './groups.ts'
import type { Value } from './literals.ts'
import type { Field, Type } from './types.ts'

/** Batches of the same columns as one. */
export function joined(fields: readonly Field[], batches: readonly Batch[]): Batch {
  const [only, ...more] = batches
  if (only && more.length === 0) return only
  const rows = batches.reduce((total, batch) => total + batch.rows, 0)
  const columns = fields.map(({ type }, at) => {
    const parts = batches.map((batch): [Column, number] => [columnAt(batch, at), batch.rows])
    return joinedArrays(parts, rows) ?? joinedValues(type, parts)
  })
  return { fields, columns, rows }
}

function columnAt(batch: Batch, at: number): Column {
  const column = batch.columns[at]
  if (!column) throw new Error('a batch without a column')
  return column
}

type TypedValues = Exclude<Values, string[]>

/** The arrays of columns one after the other; null if they are of different kinds. */
function joinedArrays(parts: readonly [Column, number][], rows: number): Column | null {
  const first = parts[0]?.[0]
  if (!first || Array.isArray(first.values)) return null
  const kind = first.values.constructor as new (length: number) => TypedValues
  const { dictionary } = first
  const isSame = ([part]: [Column, number]): boolean =>
    part.values.constructor === kind && part.dictionary === dictionary
  if (!parts.every(isSame)) return null
  const values = new kind(rows)
  const nulls = parts.some(([part]) => part.nulls) ? new Uint8Array(rows) : null
  let at = 0
  for (const [part, count] of parts) {
    values.set((part.values as TypedValues).subarray(0, count) as never, at)
    if (part.nulls) nulls?.set(part.nulls.subarray(0, count), at)
    at += count
  }
  return { values, nulls, ...(dictionary && { dictionary }) }
}

function joinedValues(type: Type, parts: readonly [Column, number][]): Column {
  const values = parts.flatMap(([column, rows]) =>
    Array.from({ length: rows }, (_, row) => valueAt(column, type, row)),
  )
  return columnFrom(type, values)
}

/** The rows of a batch as another order of them; -1 is a row of NULLs. */
export function reordered(batch: Batch, order: Int32Array): Batch {
  const hasAbsent = order.includes(-1)
  const columns = batch.columns.map(({ values, nulls, dictionary }, at) => {
    const type = batch.fields[at]?.type
    if (!type) throw new Error('a column without a field')
    const isBig = values instanceof BigInt64Array || values instanceof BigUint64Array
    const stored = dictionary ? new Int32Array(order.length) : room(type, order.length, isBig)
    const marks = nulls || hasAbsent ? new Uint8Array(order.length) : null
    order.forEach((row, place) => {
      if (row >= 0) (stored as Value[])[place] = values[row] as Value
      if (marks) marks[place] = row < 0 ? 1 : (nulls?.[row] ?? 0)
    })
    return { values: stored, nulls: marks, ...(dictionary && { dictionary }) }
  })
  return { ...batch, columns, rows: order.length }
}
