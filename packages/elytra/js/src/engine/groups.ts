/** Groups of rows that agree in their keys. */

import { room, valueAt, type Batch, type Column, type Values } from './batch.ts'
import type { Value } from './literals.ts'
import { compareValues } from './order.ts'
import { ValueOutOfRange, type Field } from './types.ts'

/** More groups than memory of a tab holds. */
const GROUPS_MAX = 5_000_000

/** Numbers the groups in the order in which their first rows come. */
export class Groups {
  /** The key values of each group, a list for each key. */
  private readonly keys: (Value | null)[][]
  // The number of each value of a key, then of each pair of numbers: a tuple of keys is a path.
  private readonly numbers: Map<Value | null, number>[]
  private readonly pairs: Map<number, number>[]
  private found = 0

  constructor(private readonly fields: readonly Field[]) {
    this.keys = fields.map(() => [])
    this.numbers = fields.map(() => new Map())
    this.pairs = fields.map(() => new Map())
  }

  get count(): number {
    return this.fields.length === 0 ? 1 : this.found
  }

  /** The group of each row; without keys all rows are in one. */
  assign(columns: readonly Column[], rows: number): Int32Array {
    const groups = new Int32Array(rows)
    columns.forEach((column, key) => {
      const isLast = key === columns.length - 1
      this.assignKey(key, column, rows, groups, columns, isLast)
    })
    return groups
  }

  /** The groups' keys as columns, and the order of the groups by them. */
  sorted(): { order: Int32Array; columns: Column[] } {
    const order = Int32Array.from({ length: this.count }, (_, group) => group)
    order.sort((a, b) => this.compare(a, b))
    const columns = this.fields.map(({ type }, key) => {
      const values = Array.from(order, (group) => this.keys[key]?.[group] ?? null)
      return columnFrom(type, values)
    })
    return { order, columns }
  }

  private assignKey(
    key: number,
    column: Column,
    rows: number,
    groups: Int32Array,
    columns: readonly Column[],
    isLast: boolean,
  ): void {
    const [numbers, pairs] = [this.numbers[key], this.pairs[key]]
    const type = this.fields[key]?.type
    if (!numbers || !pairs || !type) throw new Error('a key without a field')
    const { values, nulls } = column
    for (let row = 0; row < rows; row += 1) {
      const value = nulls?.[row] ? null : keyOf(values, row)
      let number = numbers.get(value)
      if (number === undefined) {
        number = numbers.size
        numbers.set(value, number)
      }
      // Both below 2^26, so that the product is exact.
      const pair = key === 0 && isLast ? number : (groups[row] ?? 0) * 67_108_864 + number
      let group = key === 0 && !isLast ? number : pairs.get(pair)
      if (group === undefined) {
        group = pairs.size
        pairs.set(pair, group)
        if (isLast) this.add(row, columns)
      }
      groups[row] = group
    }
  }

  private add(row: number, columns: readonly Column[]): void {
    if (this.found >= GROUPS_MAX)
      throw new ValueOutOfRange(`more than ${GROUPS_MAX} groups`, 'run the pipeline on the node')
    columns.forEach((column, key) => {
      const type = this.fields[key]?.type
      const value = type ? valueAt(column, type, row) : null
      this.keys[key]?.push(typeof value === 'number' ? value + 0 : value)
    })
    this.found += 1
  }

  private compare(a: number, b: number): number {
    for (let key = 0; key < this.fields.length; key += 1) {
      const values = this.keys[key]
      const order = compareValues(values?.[a] ?? null, values?.[b] ?? null)
      if (order !== 0) return order
    }
    return 0
  }
}

/** A value that is equal for equal keys: a Map finds NaN, and -0 is 0 in it; bigints by value. */
function keyOf(values: Values, row: number): Value {
  const value = values[row] as Value
  if (typeof value !== 'bigint') return value
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

/** A column of values, in bigints if one of them is. */
export function columnFrom(type: Field['type'], values: readonly (Value | null)[]): Column {
  const isBig = values.some((value) => typeof value === 'bigint')
  const stored = room(type, values.length, isBig)
  const nulls = new Uint8Array(values.length)
  const isBigStore = stored instanceof BigInt64Array || stored instanceof BigUint64Array
  values.forEach((value, at) => {
    if (value === null) nulls[at] = 1
    else
      (stored as Value[])[at] = isBigStore
        ? BigInt(value)
        : typeof value === 'boolean'
          ? Number(value)
          : value
  })
  return { values: stored, nulls: nulls.includes(1) ? nulls : null }
}

/** The rows of a batch as another order of them. */
export function reordered(batch: Batch, order: Int32Array): Batch {
  const columns = batch.columns.map(({ values, nulls }, at) => {
    const type = batch.fields[at]?.type
    if (!type) throw new Error('a column without a field')
    const isBig = values instanceof BigInt64Array || values instanceof BigUint64Array
    const stored = room(type, order.length, isBig)
    const marks = nulls ? new Uint8Array(order.length) : null
    order.forEach((row, place) => {
      ;(stored as Value[])[place] = values[row] as Value
      if (marks) marks[place] = nulls?.[row] ?? 0
    })
    return { values: stored, nulls: marks }
  })
  return { ...batch, columns, rows: order.length }
}
