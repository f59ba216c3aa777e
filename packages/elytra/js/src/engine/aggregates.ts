/** Aggregates over groups: one accumulator for each function. */

import { Unsupported } from '../errors.ts'
import type { AggJson } from '../plan/json.ts'
import { valueAt, type Column } from './batch.ts'
import { FloatSum, rounded } from './floatSum.ts'
import { FloatSums } from './floatSums.ts'
import { narrowed, type Value } from './literals.ts'
import { compareValues } from './order.ts'
import { lengthened } from './slots.ts'
import {
  FLOAT64,
  INT64,
  integerRange,
  isFloat,
  isInteger,
  TypeMismatch,
  typeText,
  UINT64,
  ValueOutOfRange,
  type Type,
} from './types.ts'

/** A part of an aggregate's state: of it and those of other shards the node computes the value. */
export interface StatePart {
  /** Behind the name of the output: `total$fsum`. */
  part: string
  type: string
  of: (group: number) => Value | Uint8Array | null
}

const NO_SLOTS = new Float64Array(0)

/** A part of an accumulator that a generated loop adds values to. */
export interface FusedSum {
  /** The numbers of each group, with room for some more groups. */
  slots(groups: number): Float64Array
  /**
   * Statements that add a value to group `g`.
   *
   * @param value its variable; empty for `count()`.
   * @param slots the name of the array.
   * @param self the name of this object.
   */
  code(value: string, slots: string, self: string): string
}

/** One aggregate of all groups. */
export interface Accumulator {
  readonly type: Type
  /** What a loop adds values to instead of calling `add`; null for an accumulator without code. */
  readonly fused: readonly FusedSum[] | null
  /** The state in the form of `emsqrt.plan.states`; null if this engine has none. */
  readonly state: readonly StatePart[] | null
  /**
   * Add rows, one for each element of `groups`.
   *
   * @param column that of the argument, null for `count()`.
   * @param count the number of groups so far.
   */
  add(groups: Int32Array, column: Column | null, count: number): void
  value(group: number): Value | null
}

/**
 * The accumulator of an aggregate.
 *
 * @param type the type of its argument, null for `count()`.
 * @throws Unsupported if the engine does not compute it.
 */
export function accumulatorOf(agg: AggJson, type: Type | null): Accumulator {
  if (type === null) return new Count()
  if (agg.distinct) {
    if (agg.agg === 'count') return new CountDistinct(type)
    if (agg.agg !== 'min' && agg.agg !== 'max')
      throw new Unsupported(`${agg.agg} of distinct values is not computed in JavaScript`)
  }
  switch (agg.agg) {
    case 'count':
      return new Count()
    case 'min':
    case 'max':
    case 'first':
    case 'last':
      return new Chosen(type, agg.agg)
    case 'sum':
    case 'avg':
      requireNumber(agg.agg, type)
      return isFloat(type) ? new FloatTotal(agg.agg) : new IntegerTotal(type, agg.agg)
    case 'var':
    case 'stddev':
      requireNumber(agg.agg, type)
      return new Variance(agg.agg)
  }
  throw new Unsupported(`the aggregate ${agg.agg} is not computed in JavaScript`)
}

function requireNumber(fn: string, type: Type): void {
  if (!isFloat(type) && !isInteger(type))
    throw new TypeMismatch(`${fn} takes numbers, found ${typeText(type)}`)
}

class Count implements Accumulator {
  readonly type = INT64
  readonly state = [{ part: 'count', type: 'Int64', of: (group: number) => this.value(group) }]
  private readonly counts = new Counts()
  readonly fused = [this.counts]

  add(groups: Int32Array, column: Column | null, count: number): void {
    this.counts.add(groups, column?.nulls ?? null, count)
  }

  value(group: number): number {
    return this.counts.of(group)
  }
}

/** The number of values of each group. */
class Counts implements FusedSum {
  private counts = new Float64Array(0)

  slots(groups: number): Float64Array {
    return (this.counts = lengthened(this.counts, groups))
  }

  code(_: string, slots: string): string {
    return `${slots}[g] += 1`
  }

  add(groups: Int32Array, nulls: Uint8Array | null, count: number): void {
    const counts = this.slots(count)
    for (let row = 0; row < groups.length; row += 1) {
      if (nulls !== null && nulls[row] === 1) continue
      const group = groups[row] as number
      counts[group] = (counts[group] as number) + 1
    }
  }

  of(group: number): number {
    return this.counts[group] ?? 0
  }
}

class CountDistinct implements Accumulator, FusedSum {
  readonly type = INT64
  readonly state = null // a list of values
  readonly fused: readonly FusedSum[] = [this]
  private readonly sets: (Set<Value> | undefined)[] = []

  constructor(private readonly of: Type) {}

  add(groups: Int32Array, column: Column | null): void {
    if (!column) return
    for (let row = 0; row < groups.length; row += 1) {
      const value = valueAt(column, this.of, row)
      if (value !== null) this.put(groups[row] ?? 0, value)
    }
  }

  put(group: number, value: Value): void {
    const set = (this.sets[group] ??= new Set())
    // One value is a bigint in one batch and a double in another.
    set.add(typeof value === 'bigint' ? narrowed(value) : value)
  }

  slots(): Float64Array {
    return NO_SLOTS
  }

  code(value: string, _: string, self: string): string {
    return `${self}.put(g, ${value})`
  }

  value(group: number): number {
    return this.sets[group]?.size ?? 0
  }
}

/** `min max first last`: one of the values. */
class Chosen implements Accumulator, FusedSum {
  readonly state: readonly StatePart[]
  fused: readonly FusedSum[] | null
  private readonly chosen: (Value | undefined)[] = []
  /** Of columns of doubles, until the first one of bigints. */
  private numbers: ChosenNumbers | null

  constructor(
    readonly type: Type,
    private readonly which: Choice,
  ) {
    this.state = [{ part: which, type: typeText(type), of: (group) => this.value(group) }]
    this.numbers = type.name === 'Utf8' || type.name === 'Bool' ? null : new ChosenNumbers(which)
    this.fused = [this.numbers ?? this]
  }

  add(groups: Int32Array, column: Column | null, count: number): void {
    if (!column) return
    if (this.numbers && column.values instanceof Float64Array)
      return this.numbers.add(groups, column.values, column.nulls, count)
    this.keepNumbers(count)
    for (let row = 0; row < groups.length; row += 1) {
      const value = valueAt(column, this.type, row)
      if (value !== null) this.put(groups[row] as number, value)
    }
  }

  put(group: number, value: Value): void {
    const before = this.chosen[group]
    if (before === undefined || this.replaces(value, before))
      this.chosen[group] = typeof value === 'number' ? value + 0 : value
  }

  slots(): Float64Array {
    return NO_SLOTS
  }

  code(value: string, _: string, self: string): string {
    return `${self}.put(g, ${value})`
  }

  value(group: number): Value | null {
    return this.numbers ? this.numbers.of(group) : (this.chosen[group] ?? null)
  }

  /** Continue with a list of values of any kind. */
  private keepNumbers(count: number): void {
    if (!this.numbers) return
    for (let group = 0; group < count; group += 1)
      this.chosen[group] = this.numbers.of(group) ?? undefined
    this.numbers = null
    this.fused = null // its loops add to the numbers
  }

  private replaces(value: Value, before: Value): boolean {
    if (this.which === 'first') return false
    if (this.which === 'last') return true
    const order = compareValues(value, before)
    return this.which === 'min' ? order < 0 : order > 0
  }
}

type Choice = 'min' | 'max' | 'first' | 'last'

/** One of the doubles of each group; NaN is above all others. */
class ChosenNumbers implements FusedSum {
  /** NaN for a group without a value too, so that it is below and above nothing. */
  private chosen = new Float64Array(0)
  private has = new Uint8Array(0)

  constructor(private readonly which: Choice) {}

  slots(groups: number): Float64Array {
    this.has = lengthened(this.has, groups)
    return (this.chosen = lengthened(this.chosen, groups, NaN))
  }

  /** The usual row of a minimum or maximum changes nothing. */
  code(value: string, slots: string, self: string): string {
    const put = `${self}.put(g, ${value})`
    if (this.which === 'min') return `if (!(${value} >= ${slots}[g])) ${put}`
    return this.which === 'max' ? `if (!(${value} <= ${slots}[g])) ${put}` : put
  }

  add(groups: Int32Array, values: Float64Array, nulls: Uint8Array | null, count: number): void {
    const chosen = this.slots(count)
    const isMin = this.which === 'min'
    const isMax = this.which === 'max'
    for (let row = 0; row < groups.length; row += 1) {
      if (nulls !== null && nulls[row] === 1) continue
      const group = groups[row] as number
      const value = values[row] as number
      const before = chosen[group] as number
      if ((isMin && value >= before) || (isMax && value <= before)) continue
      this.put(group, value)
    }
  }

  put(group: number, value: number): void {
    if (this.has[group] === 1 && !this.replaces(value, this.chosen[group] as number)) return
    this.chosen[group] = value + 0 // 0 for -0
    this.has[group] = 1
  }

  of(group: number): number | null {
    return this.has[group] ? (this.chosen[group] ?? null) : null
  }

  private replaces(value: number, before: number): boolean {
    switch (this.which) {
      case 'first':
        return false
      case 'last':
        return true
      case 'min':
        return value < before || (before !== before && value === value)
      case 'max':
        return value > before || value !== value
    }
  }
}

/** The sum of whole numbers, exact: doubles up to 2^53, carried to bigints. */
class IntegerTotal implements Accumulator, FusedSum {
  readonly type: Type
  readonly state: readonly StatePart[]
  private totals = new Float64Array(0)
  private readonly carried: (bigint | undefined)[] = []
  private readonly counts = new Counts()
  readonly fused: readonly FusedSum[] = [this, this.counts]

  constructor(
    of: Type,
    private readonly fn: string,
  ) {
    this.type = fn === 'avg' ? FLOAT64 : of.name === 'UInt64' ? UINT64 : INT64
    const part = of.name === 'UInt64' ? 'usum' : 'isum'
    const sum = { part, type: 'Decimal(38,0)', of: (group: number) => this.total(group) }
    this.state = fn === 'avg' ? [sum, countPart(this.counts)] : [sum]
  }

  add(groups: Int32Array, column: Column | null, count: number): void {
    if (!column) return
    const { values, nulls } = column
    this.counts.add(groups, nulls, count)
    const totals = this.slots(count)
    for (let row = 0; row < groups.length; row += 1) {
      if (nulls !== null && nulls[row] === 1) continue
      const group = groups[row] as number
      const value = values[row] as number | bigint
      if (typeof value === 'number') {
        const total = (totals[group] as number) + value
        if (total <= Number.MAX_SAFE_INTEGER && total >= -Number.MAX_SAFE_INTEGER) {
          totals[group] = total
          continue
        }
      }
      this.carry(group, value)
    }
  }

  slots(groups: number): Float64Array {
    return (this.totals = lengthened(this.totals, groups))
  }

  code(value: string, slots: string, self: string): string {
    const max = Number.MAX_SAFE_INTEGER
    return `const t = ${slots}[g] + ${value}; if (t <= ${max} && t >= -${max}) ${slots}[g] = t; else ${self}.carry(g, ${value})`
  }

  /** Add a value that the total in a double cannot take. */
  carry(group: number, value: number | bigint): void {
    const before = this.totals[group] as number
    this.carried[group] = (this.carried[group] ?? 0n) + BigInt(before) + BigInt(value)
    this.totals[group] = 0
  }

  value(group: number): Value | null {
    const total = this.total(group)
    if (total === null) return null
    if (this.fn === 'avg') return Number(total) / this.counts.of(group)
    const [low, high] = integerRange(this.type)
    if (total < low || total > high)
      throw new ValueOutOfRange(`a sum overflows ${this.type.name}`, 'sum a cast to Float64')
    return narrowed(total)
  }

  private total(group: number): bigint | null {
    if (this.counts.of(group) === 0) return null
    return (this.carried[group] ?? 0n) + BigInt(this.totals[group] ?? 0)
  }
}

function countPart(counts: Counts): StatePart {
  return { part: 'count', type: 'Int64', of: (group) => counts.of(group) }
}

class FloatTotal implements Accumulator {
  readonly type = FLOAT64
  readonly state: readonly StatePart[]
  private readonly sums = new FloatSums()
  private readonly counts = new Counts()
  readonly fused: readonly FusedSum[]

  constructor(private readonly fn: string) {
    this.fused = fn === 'avg' ? [this.sums, this.counts] : [this.sums]
    const sum: StatePart = {
      part: 'fsum',
      type: 'Binary',
      of: (group) => this.sums.of(group)?.bytes() ?? null,
    }
    this.state = fn === 'avg' ? [sum, countPart(this.counts)] : [sum]
  }

  add(groups: Int32Array, column: Column | null, count: number): void {
    if (!column) return
    this.sums.add(groups, column.values as Float64Array, column.nulls, count)
    if (this.fn === 'avg') this.counts.add(groups, column.nulls, count)
  }

  value(group: number): number | null {
    const sum = this.sums.of(group)
    if (!sum) return null
    return this.fn === 'sum' ? sum.value() : sum.value() / this.counts.of(group)
  }
}

/** Variance and standard deviation of a sample, from exact sums of values and squares. */
class Variance implements Accumulator, FusedSum {
  readonly type = FLOAT64
  readonly state: readonly StatePart[]
  private readonly sums: ([FloatSum, FloatSum] | undefined)[] = []
  private readonly counts = new Counts()
  readonly fused: readonly FusedSum[] = [this, this.counts]

  constructor(private readonly fn: string) {
    const part = (name: string, at: 0 | 1): StatePart => ({
      part: name,
      type: 'Binary',
      of: (group) => this.sums[group]?.[at].bytes() ?? null,
    })
    this.state = [part('fsum', 0), part('fsum2', 1), countPart(this.counts)]
  }

  add(groups: Int32Array, column: Column | null, count: number): void {
    if (!column) return
    const { values, nulls } = column
    this.counts.add(groups, nulls, count)
    for (let row = 0; row < groups.length; row += 1) {
      if (!nulls?.[row]) this.put(groups[row] as number, Number(values[row]))
    }
  }

  put(group: number, value: number): void {
    const [sum, squares] = (this.sums[group] ??= [new FloatSum(), new FloatSum()])
    sum.add(value)
    squares.addSquare(value)
  }

  slots(): Float64Array {
    return NO_SLOTS
  }

  code(value: string, _: string, self: string): string {
    return `${self}.put(g, ${value})`
  }

  value(group: number): number | null {
    const [sums, count] = [this.sums[group], this.counts.of(group)]
    if (!sums || count < 2) return null
    const variance = varianceOf(sums[0], sums[1], BigInt(count))
    return this.fn === 'var' ? variance : Math.sqrt(variance)
  }
}

/** max(0, n B - A²) / (n (n - 1)), rounded once. */
function varianceOf(sum: FloatSum, squares: FloatSum, count: bigint): number {
  if (sum.special() !== null || squares.special() !== null) return NaN
  const [a, aExponent] = sum.exact()
  const [b, bExponent] = squares.exact()
  const exponent = Math.min(2 * aExponent, bExponent)
  const spread =
    ((count * b) << BigInt(bExponent - exponent)) - ((a * a) << BigInt(2 * aExponent - exponent))
  return spread <= 0n ? 0 : rounded(spread, count * (count - 1n), exponent)
}
