/**
 * Joins of batches with a small side, which is in memory as a whole.
 *
 * Rows are in the order of the batches, and the matches of one row in the order of the side.
 */

import { SennitError, Unsupported, UsageError } from '../errors.ts'
import type { PlanNode } from '../plan/json.ts'
import type { Batch, Column } from './batch.ts'
import { keyOf } from './groups.ts'
import { reordered } from './joined.ts'
import type { Value } from './literals.ts'
import { isFloat, sameType, type Field } from './types.ts'

export type JoinNode = Extract<PlanNode, { op: 'join' }>

/** Of one batch: a row may match many rows of the side. */
const ROWS_MAX = 5_000_000
const SUFFIX = '_right'
/** The number of keys with a NULL, which equal nothing, and of those that the side does not have. */
const NONE = -1
const UNKNOWN = -2
/** More than a number of keys is, so that a pair of them is an exact double. */
const PAIR = 2 ** 26

/**
 * The name of the stream that is the right side of a join.
 *
 * @throws Unsupported if it is not a stream.
 */
export function sideOf({ right }: JoinNode): string {
  const files = right.op === 'scan' ? (right.source as { files?: unknown }).files : null
  const [name] = Array.isArray(files) ? (files as unknown[]) : []
  if (typeof name === 'string') return name
  throw new Unsupported('join is not computed in JavaScript')
}

/** Joins batches with a side. */
export class JoinStage {
  readonly isFull = false
  readonly fields: readonly Field[]
  private readonly how: 'inner' | 'left' | 'semi' | 'anti'
  /** The places of the keys in the batches. */
  private readonly places: readonly number[]
  private readonly matches: Matches
  /** The columns of the side that are in the result. */
  private readonly side: Batch

  /**
   * @param fields the columns of the batches.
   * @throws Unsupported for other joins, and for keys that are compared as another type.
   */
  constructor(step: JoinNode, fields: readonly Field[], side: Batch) {
    const { how = 'inner', on = [], suffix = SUFFIX } = step
    if (how === 'right' || how === 'full' || how === 'cross')
      throw new Unsupported(`a ${how} join is not computed in JavaScript`)
    this.how = how
    this.places = on.map(({ left }) => placeOf(fields, left))
    const keys = on.map(({ right }) => placeOf(side.fields, right))
    keys.forEach((key, at) => checkKeys(fields[this.places[at] ?? 0], side.fields[key]))
    this.matches = new Matches(
      keys.map((key) => side.columns[key] as Column),
      side.rows,
    )
    const shared = new Set(on.flatMap(({ left, right }) => (left === right ? [right] : [])))
    const kept = side.fields.flatMap(({ name }, at) =>
      how === 'semi' || how === 'anti' || shared.has(name) ? [] : [at],
    )
    const taken = new Set(fields.map(({ name }) => name))
    const named = ({ name, type }: Field): Field => ({
      name: taken.has(name) ? name + suffix : name,
      type,
    })
    this.side = {
      fields: kept.map((at) => named(side.fields[at] as Field)),
      columns: kept.map((at) => side.columns[at] as Column),
      rows: side.rows,
    }
    this.fields = [...fields, ...this.side.fields]
  }

  add(batch: Batch): Batch {
    const { matches, how } = this
    const keys = matches.find(
      this.places.map((at) => batch.columns[at] as Column),
      batch.rows,
    )
    if (how === 'semi' || how === 'anti') {
      const rows = Array.from(keys.keys()).filter(
        (row) => (keys[row] as number) >= 0 === (how === 'semi'),
      )
      return reordered(batch, Int32Array.from(rows))
    }
    const [left, right] = matches.pairs(keys, how === 'left')
    const rows = reordered(batch, left)
    const others = reordered(this.side, right)
    return { fields: this.fields, columns: [...rows.columns, ...others.columns], rows: rows.rows }
  }

  finish(): null {
    return null
  }
}

function placeOf(fields: readonly Field[], name: string): number {
  const found = fields.findIndex((field) => field.name === name)
  if (found >= 0) return found
  throw new UsageError(`there is no column ${JSON.stringify(name)}`)
}

function checkKeys(one?: Field, other?: Field): void {
  if (one && other && sameType(one.type, other.type) && !isFloat(one.type)) return
  throw new Unsupported('keys of two types, and floats as keys, are not compared in JavaScript')
}

/** The rows of a side by their keys. */
class Matches {
  /** The number of each value of a key, then of each pair of numbers: a tuple of keys is a path. */
  private readonly numbers: Map<Value, number>[]
  private readonly paths: Map<number, number>[]
  /** Where the rows of each tuple begin in `rows`; one more than tuples. */
  private readonly starts: Int32Array
  private readonly rows: Int32Array

  /** @param columns the keys of the side. */
  constructor(columns: readonly Column[], count: number) {
    this.numbers = columns.map(() => new Map())
    this.paths = columns.map(() => new Map())
    const tuples = this.numbered(columns, count, true)
    const last = columns.length - 1
    const size = last === 0 ? this.numbers[0]?.size : this.paths[last]?.size
    const starts = new Int32Array((size ?? 0) + 1)
    for (const tuple of tuples) if (tuple >= 0) (starts[tuple + 1] as number) += 1
    for (let at = 1; at < starts.length; at += 1) (starts[at] as number) += starts[at - 1] as number
    this.starts = starts
    this.rows = new Int32Array(starts[starts.length - 1] ?? 0)
    const next = starts.slice()
    tuples.forEach((tuple, row) => {
      if (tuple < 0) return
      this.rows[next[tuple] as number] = row
      ;(next[tuple] as number) += 1
    })
  }

  /** The tuple of each row, below 0 for one that matches nothing. */
  find(columns: readonly Column[], rows: number): Int32Array {
    return this.numbered(columns, rows, false)
  }

  /**
   * The rows of the batch and of the side that match.
   *
   * @param keepsAll whether a row without a match is there once, with -1.
   */
  pairs(tuples: Int32Array, keepsAll: boolean): [Int32Array, Int32Array] {
    const { starts } = this
    let count = 0
    for (const tuple of tuples)
      count +=
        tuple < 0 ? Number(keepsAll) : (starts[tuple + 1] as number) - (starts[tuple] as number)
    if (count > ROWS_MAX)
      throw new SennitError(`a join makes more than ${ROWS_MAX} rows of a batch`, {
        code: 'memory-cap-exceeded',
      })
    const left = new Int32Array(count)
    const right = new Int32Array(count)
    let at = 0
    tuples.forEach((tuple, row) => {
      const end = tuple < 0 ? Number(keepsAll) : (starts[tuple + 1] as number)
      for (
        let place = tuple < 0 ? 0 : (starts[tuple] as number);
        place < end;
        place += 1, at += 1
      ) {
        left[at] = row
        right[at] = tuple < 0 ? -1 : (this.rows[place] as number)
      }
    })
    return [left, right]
  }

  private numbered(columns: readonly Column[], rows: number, adds: boolean): Int32Array {
    const tuples = new Int32Array(rows)
    columns.forEach((column, key) => {
      const found = this.valuesOf(key, column, rows, adds)
      const paths = this.paths[key] as Map<number, number>
      for (let row = 0; row < rows; row += 1) {
        const [tuple, number] = [tuples[row] as number, found[row] as number]
        if (key === 0 || tuple < 0) tuples[row] = key === 0 ? number : tuple
        else tuples[row] = number < 0 ? NONE : numberOf(paths, tuple * PAIR + number, adds)
      }
    })
    return tuples
  }

  private valuesOf(key: number, column: Column, rows: number, adds: boolean): Int32Array {
    const numbers = this.numbers[key] as Map<Value, number>
    const { values, nulls, dictionary } = column
    const found = new Int32Array(rows)
    // The number of each code: a text is looked up once.
    const codes = new Int32Array(dictionary?.size ?? 0).fill(UNKNOWN)
    for (let row = 0; row < rows; row += 1) {
      if (nulls?.[row]) {
        found[row] = NONE
      } else if (dictionary) {
        const code = values[row] as number
        if (codes[code] === UNKNOWN) codes[code] = numberOf(numbers, dictionary.text(code), adds)
        found[row] = codes[code] as number
      } else {
        found[row] = numberOf(numbers, keyOf(values, row), adds)
      }
    }
    return found
  }
}

function numberOf<K>(numbers: Map<K, number>, value: K, adds: boolean): number {
  const found = numbers.get(value)
  if (found !== undefined || !adds) return found ?? NONE
  numbers.set(value, numbers.size)
  return numbers.size - 1
}
