/**
 * Expressions over the columns of a row, with SQL's meaning; they build the plan's JSON.
 *
 * `col('price').mul(col('qty')).gt(500)` is the same expression as Python's
 * `col("price") * col("qty") > 500`, byte for byte in the plan.
 */

import { UsageError } from '../errors.ts'
import type { AggJson, ExprJson, FrameJson, SortKeyJson, WindowCallJson } from './json.ts'
import { checkType, spellLiteral, type Constant } from './values.ts'

/** An expression, or a value that becomes a constant. */
export type Operand = Expr<unknown> | Constant

/** Associative functions, whose chains are merged into one call. */
const FLAT = new Set(['and', 'or', 'concat'])

/** One expression; `T` is the JavaScript type of its values in results. */
export class Expr<T = unknown> {
  /** Only for inference: no such member exists at run time. */
  declare protected readonly valueType: T

  constructor(readonly json: ExprJson) {}

  /** The name of the column, if the expression is one. */
  get columnName(): string | null {
    return 'col' in this.json ? this.json.col : null
  }

  add(other: Operand): Expr<number> {
    return call('add', this, other)
  }
  sub(other: Operand): Expr<number> {
    return call('sub', this, other)
  }
  mul(other: Operand): Expr<number> {
    return call('mul', this, other)
  }
  /** Divide; the result is a float, also of two integers. */
  div(other: Operand): Expr<number> {
    return call('div', this, other)
  }
  /** Divide integers and drop the fraction. */
  idiv(other: Operand): Expr<number> {
    return call('idiv', this, other)
  }
  mod(other: Operand): Expr<number> {
    return call('mod', this, other)
  }
  neg(): Expr<number> {
    return call('neg', this)
  }

  eq(other: Operand): Expr<boolean> {
    return call('eq', this, other)
  }
  ne(other: Operand): Expr<boolean> {
    return call('ne', this, other)
  }
  lt(other: Operand): Expr<boolean> {
    return call('lt', this, other)
  }
  le(other: Operand): Expr<boolean> {
    return call('le', this, other)
  }
  gt(other: Operand): Expr<boolean> {
    return call('gt', this, other)
  }
  ge(other: Operand): Expr<boolean> {
    return call('ge', this, other)
  }
  between(low: Operand, high: Operand): Expr<boolean> {
    return call('between', this, low, high)
  }
  /** SQL's `IN`: NULL where nothing matches and either side has a NULL. */
  isIn(values: readonly Operand[]): Expr<boolean> {
    return call('is_in', this, ...values)
  }

  and(other: Operand): Expr<boolean> {
    return call('and', this, other)
  }
  or(other: Operand): Expr<boolean> {
    return call('or', this, other)
  }
  not(): Expr<boolean> {
    return call('not', this)
  }
  isNull(): Expr<boolean> {
    return call('is_null', this)
  }
  isNotNull(): Expr<boolean> {
    return call('not', call('is_null', this))
  }
  isNaN(): Expr<boolean> {
    return call('is_nan', this)
  }

  /** Convert; a value that does not fit is an error when the plan runs. */
  cast(type: string): Expr {
    return new Expr({ cast: this.json, type: checkType(type) })
  }
  /** Convert; a value that does not fit becomes NULL. */
  tryCast(type: string): Expr {
    return new Expr({ cast: this.json, type: checkType(type), strict: false })
  }

  like(pattern: string): Expr<boolean> {
    return call('like', this, pattern)
  }
  ilike(pattern: string): Expr<boolean> {
    return call('ilike', this, pattern)
  }
  /** Whether the regular expression (RE2) matches any part of the text. */
  regexpMatches(pattern: string): Expr<boolean> {
    return call('regexp_matches', this, pattern)
  }
  contains(part: Operand): Expr<boolean> {
    return call('contains', this, part)
  }
  startsWith(part: Operand): Expr<boolean> {
    return call('starts_with', this, part)
  }
  endsWith(part: Operand): Expr<boolean> {
    return call('ends_with', this, part)
  }
  upper(): Expr<string> {
    return call('upper', this)
  }
  lower(): Expr<string> {
    return call('lower', this)
  }
  trim(): Expr<string> {
    return call('trim', this)
  }
  /** Characters (code points) of the text. */
  length(): Expr<number> {
    return call('length', this)
  }
  /** `count` characters from `start`, the first is 1. */
  substr(start: Operand, count?: Operand): Expr<string> {
    return count === undefined ? call('substr', this, start) : call('substr', this, start, count)
  }
  replace(old: Operand, by: Operand): Expr<string> {
    return call('replace', this, old, by)
  }
  /** The part at `index` (1 is the first, -1 the last), "" where there is none. */
  splitPart(separator: string, index: number): Expr<string> {
    return call('split_part', this, separator, index)
  }

  /** Round half away from zero. */
  round(digits = 0): Expr<number> {
    return call('round', this, digits)
  }
  floor(): Expr<number> {
    return call('floor', this)
  }
  ceil(): Expr<number> {
    return call('ceil', this)
  }
  abs(): Expr<number> {
    return call('abs', this)
  }

  year(): Expr<number> {
    return call('year', this)
  }
  month(): Expr<number> {
    return call('month', this)
  }
  day(): Expr<number> {
    return call('day', this)
  }
  hour(): Expr<number> {
    return call('hour', this)
  }
  minute(): Expr<number> {
    return call('minute', this)
  }
  second(): Expr<number> {
    return call('second', this)
  }
  /** The start of the enclosing year, quarter, month, week (Monday), day, hour, … */
  dateTrunc(unit: string): Expr<string> {
    return call('date_trunc', unit, this)
  }
  /** The date `count` units later; a day that the month lacks becomes its last. */
  dateAdd(unit: string, count: Operand): Expr<string> {
    return call('date_add', unit, count, this)
  }
  /** How many units begin between `start` and this date. */
  dateDiff(unit: string, start: Operand): Expr<number> {
    return call('date_diff', unit, start, this)
  }
  /** The date as text; `%Y %m %d %H %M %S %f %j %y %F %T`. */
  strftime(format: string): Expr<string> {
    return call('strftime', this, format)
  }
  /** The text as a Timestamp(us); a text that is not of the format is an error. */
  strptime(format: string): Expr<string> {
    return call('strptime', this, format)
  }

  count(): Agg<number> {
    return new Agg({ agg: 'count', arg: this.json })
  }
  countDistinct(): Agg<number> {
    return new Agg({ agg: 'count', arg: this.json, distinct: true })
  }
  sum(): Agg<number> {
    return this.aggregate('sum')
  }
  avg(): Agg<number> {
    return this.aggregate('avg')
  }
  mean(): Agg<number> {
    return this.avg()
  }
  min(): Agg<T> {
    return this.aggregate('min')
  }
  max(): Agg<T> {
    return this.aggregate('max')
  }
  first(): Agg<T> {
    return this.aggregate('first')
  }
  last(): Agg<T> {
    return this.aggregate('last')
  }
  var(): Agg<number> {
    return this.aggregate('var')
  }
  stddev(): Agg<number> {
    return this.aggregate('stddev')
  }
  median(): Agg<number> {
    return this.aggregate('median')
  }
  /** The value below which `fraction` (0 to 1) of the values are. */
  quantile(fraction: number): Agg<number> {
    if (!(fraction >= 0 && fraction <= 1))
      throw new UsageError(`quantile takes a constant from 0 to 1, not ${fraction}`)
    return new Agg({
      agg: 'quantile',
      arg: this.json,
      params: [spellLiteral(fraction, 'Float64')],
    })
  }

  asc(options: { nullsFirst?: boolean } = {}): SortKey {
    return new SortKey(this.json, false, options.nullsFirst ?? false)
  }
  desc(options: { nullsFirst?: boolean } = {}): SortKey {
    return new SortKey(this.json, true, options.nullsFirst ?? false)
  }

  private aggregate<U>(agg: string): Agg<U> {
    return new Agg({ agg, arg: this.json })
  }

  /** Operators of JavaScript would work on the object and not on the values of the column. */
  [Symbol.toPrimitive](): never {
    throw new UsageError(
      'an expression has no value: it is computed row by row',
      "write col('a').gt(5), or a function: (r) => r.a > 5",
    )
  }
}

/** An aggregate over the rows of a group. */
export class Agg<T = unknown> extends Expr<T> {
  constructor(readonly aggregateJson: AggJson) {
    super(aggregateJson)
  }

  /** The aggregate as a window function, over a frame of rows or by default SQL's. */
  over(frame?: FrameJson): WindowCall {
    const { agg, arg } = this.aggregateJson
    return new WindowCall({ window: agg, ...(arg && { arg }), ...(frame && { frame }) })
  }
}

/** A key by which rows are sorted. */
export class SortKey {
  constructor(
    readonly expr: ExprJson,
    readonly descending: boolean,
    readonly nullsFirst: boolean,
  ) {}

  get json(): SortKeyJson {
    return {
      expr: this.expr,
      ...(this.descending && { descending: true as const }),
      ...(this.nullsFirst && { nullsFirst: true as const }),
    }
  }
}

/** A window function of `Pipeline.window`. */
export class WindowCall {
  constructor(readonly json: WindowCallJson) {}
}

/** A case without its default: `when(c).then(x).when(d).then(y).otherwise(z)`. */
export class Case<T = unknown> extends Expr<T> {
  constructor(private readonly branches: { when: ExprJson; then: ExprJson }[]) {
    super({ case: branches })
  }
  when(condition: Operand): When {
    return new When(exprOf(condition).json, this.branches)
  }
  otherwise(value: Operand): Expr<T> {
    return new Expr({ case: this.branches, else: exprOf(value).json })
  }
}

/** A condition whose value is still missing. */
export class When {
  constructor(
    private readonly condition: ExprJson,
    private readonly before: { when: ExprJson; then: ExprJson }[] = [],
  ) {}
  then(value: Operand): Case {
    return new Case([...this.before, { when: this.condition, then: exprOf(value).json }])
  }
}

/** The value of a column. */
export function col<T = unknown>(name: string): Expr<T> {
  return new Expr<T>({ col: name })
}

/** A constant; `type` is needed where JavaScript's own type is not the intended one. */
export function lit<T extends Constant>(value: T, type?: string): Expr<T> {
  return new Expr<T>(spellLiteral(value, type))
}

export function when(condition: Operand): When {
  return new When(exprOf(condition).json)
}

/** The number of rows. */
export function count(): Agg<number> {
  return new Agg({ agg: 'count' })
}

/** The first value that is not NULL. */
export function coalesce(...values: Operand[]): Expr {
  return call('coalesce', ...values)
}

/** Texts joined as SQL's `||` does: NULL if any is NULL. */
export function concat(...values: Operand[]): Expr<string> {
  return call('concat', ...values)
}

export function greatest(...values: Operand[]): Expr {
  return call('greatest', ...values)
}

export function least(...values: Operand[]): Expr {
  return call('least', ...values)
}

/** Any function of the node by its name, such as `call('regexp_replace', col('a'), 'x+', 'y')`. */
export function call<T>(fn: string, ...values: Operand[]): Expr<T> {
  const args = values.map((value) => exprOf(value).json)
  const first = args[0]
  if (FLAT.has(fn) && first && 'fn' in first && first.fn === fn) args.splice(0, 1, ...first.args)
  return new Expr({ fn, args })
}

/** The value itself if it is an expression, otherwise its literal. */
export function exprOf(value: Operand): Expr {
  return value instanceof Expr ? value : lit(value as Constant)
}
