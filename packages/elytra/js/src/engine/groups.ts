/** Groups of rows that agree in their keys. */

import { room, valueAt, type Column, type Values } from './batch.ts'
import type { Dictionary } from './dictionary.ts'
import type { Value } from './literals.ts'
import { compareValues } from './order.ts'
import { ValueOutOfRange, type Field } from './types.ts'

/** More groups than memory of a tab holds. */
const GROUPS_MAX = 5_000_000
/** More than a group or a number of a value is, so that a pair of them is an exact double. */
const PAIR = 2 ** 26

/** Numbers the groups in the order in which their first rows come. */
export class Groups {
  /** The key values of each group, a list for each key. */
  private readonly keys: (Value | null)[][]
  // The number of each value of a key, then of each pair of numbers: a tuple of keys is a path.
  private readonly numbers: Map<Value | null, number>[]
  private readonly pairs: Map<number, number>[]
  /** Of keys with a dictionary: the number of NULL, then those of its codes. */
  private readonly codes: ({ dictionary: Dictionary; numbers: Int32Array } | undefined)[] = []
  private made = 0
  private groups = new Int32Array(0)
  private found = new Int32Array(0)

  constructor(private readonly fields: readonly Field[]) {
    this.keys = fields.map(() => [])
    this.numbers = fields.map(() => new Map())
    this.pairs = fields.map(() => new Map())
  }

  get count(): number {
    return this.fields.length === 0 ? 1 : this.made
  }

  /** The group of each row, until the next call; without keys all rows are in one. */
  assign(columns: readonly Column[], rows: number): Int32Array {
    if (rows > this.groups.length) {
      this.groups = new Int32Array(rows)
      this.found = new Int32Array(rows)
    }
    const groups = this.groups.subarray(0, rows)
    columns.forEach((column, key) => {
      // The numbers of the first key, in the order of their first rows, are groups already.
      if (key === 0) this.number(0, column, groups)
      else this.pair(key, column, groups)
    })
    const last = columns.length - 1
    const size = (last === 0 ? this.numbers[0]?.size : this.pairs[last]?.size) ?? 0
    for (let row = 0; this.count < size && row < rows; row += 1)
      if (groups[row] === this.count) this.add(row, columns)
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

  /** Number the values of a key. */
  private number(key: number, { values, nulls, dictionary }: Column, into: Int32Array): void {
    const numbers = this.numbers[key]
    if (!numbers) throw new Error('a key without a field')
    if (!dictionary) {
      for (let row = 0; row < into.length; row += 1)
        into[row] = numberOf(numbers, nulls?.[row] ? null : keyOf(values, row))
      return
    }
    const codes = this.codesOf(key, dictionary)
    for (let row = 0; row < into.length; row += 1) {
      const place = nulls !== null && nulls[row] === 1 ? 0 : (values[row] as number) + 1
      const found = codes[place] as number
      into[row] = found < 0 ? this.numberCode(key, place) : found
    }
  }

  /** Make groups of rows, and of the numbers of a further key, groups of both. */
  private pair(key: number, column: Column, groups: Int32Array): void {
    const pairs = this.pairs[key]
    if (!pairs) throw new Error('a key without a field')
    const found = this.found.subarray(0, groups.length)
    this.number(key, column, found)
    for (let row = 0; row < groups.length; row += 1) {
      const pair = (groups[row] as number) * PAIR + (found[row] as number)
      groups[row] = numberOf(pairs, pair)
    }
  }

  /** The numbers of NULL and of a dictionary's codes so far, -1 for one without a number. */
  codesOf(key: number, dictionary: Dictionary): Int32Array {
    const known = this.codes[key]
    const before = known?.dictionary === dictionary ? known.numbers : new Int32Array(0)
    if (before.length > dictionary.size) return before
    const numbers = new Int32Array(2 * dictionary.size + 1).fill(-1)
    numbers.set(before)
    this.codes[key] = { dictionary, numbers }
    return numbers
  }

  /** Number a key's NULL (at place 0) or the code below `place`, of the dictionary of `codesOf`. */
  numberCode(key: number, place: number): number {
    const known = this.codes[key]
    if (!known) throw new Error('a code without a dictionary')
    const value = place === 0 ? null : known.dictionary.text(place - 1)
    return (known.numbers[place] = this.numberValue(key, value))
  }

  /** The number of a key's value; booleans are 0 and 1. */
  numberValue(key: number, value: Value | null): number {
    return numberOf(this.numbers[key] as Map<Value | null, number>, value)
  }

  /** The number of a pair: a group of the keys before `key`, and the number of its value. */
  numberPair(key: number, group: number, number: number): number {
    return numberOf(this.pairs[key] as Map<number, number>, group * PAIR + number)
  }

  private add(row: number, columns: readonly Column[]): void {
    this.addGroup(
      columns.map((column, key) => {
        const type = this.fields[key]?.type
        return type ? valueAt(column, type, row) : null
      }),
    )
  }

  /** Add the group whose number is `count`. */
  addGroup(values: readonly (Value | null)[]): void {
    if (this.made >= GROUPS_MAX)
      throw new ValueOutOfRange(`more than ${GROUPS_MAX} groups`, 'run the pipeline on the node')
    values.forEach((value, key) => {
      this.keys[key]?.push(typeof value === 'number' ? value + 0 : value)
    })
    this.made += 1
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

/** The number of a value: values are numbered in the order in which they come. */
function numberOf<K>(numbers: Map<K, number>, value: K): number {
  const found = numbers.get(value)
  if (found !== undefined) return found
  numbers.set(value, numbers.size)
  return numbers.size - 1
}

/** A value that is equal for equal keys: a Map finds NaN, and -0 is 0 in it; bigints by value. */
export function keyOf(values: Values, row: number): Value {
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
