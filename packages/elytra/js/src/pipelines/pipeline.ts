/**
 * The fluent API: a pipeline builds a plan, and nothing runs until a result is asked for.
 *
 *   Elytra.remote('sales').filter((r) => r.qty > 2).groupBy('country').agg({ n: count() }).collect()
 *
 * Each verb returns a new pipeline; the plan is the one that the same verbs of Python build.
 */

import { Unsupported, UsageError } from '../errors.ts'
import type { Job, JobOptions, Runner } from '../client/job.ts'
import type { Result } from '../client/result.ts'
import { Accumulator, type Fold } from '../functions/fold.ts'
import { operand, Row } from '../functions/meaning.ts'
import { translate, type Scope } from '../functions/translate.ts'
import { planHash, planOf } from '../plan/canonical.ts'
import { columnNames, onlyColumn, SUFFIX, without } from '../plan/columns.ts'
import {
  Agg,
  call,
  coalesce,
  col,
  count,
  Expr,
  exprOf,
  greatest,
  least,
  lit,
  type WindowCall,
} from '../plan/expr.ts'
import type {
  JoinKind,
  NamedExpr,
  OpaqueNode,
  PlanJson,
  PlanNode,
  SourceJson,
} from '../plan/json.ts'
import { hexFloat, type Constant } from '../plan/values.ts'
import { Opaque } from '../sandbox/opaque.ts'
import { joinPairs, sortKeys, type On } from './keys.ts'
import { checkSent, holdsFunction, javascriptNode, opaqueNode } from './opaque.ts'
import type {
  AggregateRow,
  Aggregates,
  AnyRow,
  Cells,
  Formula,
  InputBy,
  InputOf,
  Key,
  MadeBy,
  PlainOf,
  RowOf,
  ValueOf,
} from './types.ts'

/** How functions receive a row; `map` decides it, verbs with named columns reset it. */
type Shape = 'row' | 'tuple' | 'value'

/** A step of a plan whose input's column names must be known first. */
type Build = (columns: () => Promise<string[]>, input: PlanNode) => Promise<PlanNode>

/** A lazy computation over one dataset, or over several joined ones. */
export class Pipeline<R extends object = AnyRow, In = Cells<R>> {
  private constructor(
    private readonly runner: Runner,
    /** Builds the plan; the dataset's columns are asked for only where a verb needs them. */
    private readonly build: () => Promise<PlanNode>,
    private readonly shape: Shape = 'row',
    /** The columns that `map` has named; null after verbs that name others. */
    private readonly mapped: readonly string[] | null = null,
  ) {}

  /** Begin a pipeline over a source. */
  static over<R extends object>(runner: Runner, source: SourceJson): Pipeline<R> {
    return new Pipeline<R>(runner, () => Promise.resolve({ op: 'scan', source }))
  }

  // Rows

  /** Keep the rows for which the condition is true; NULL is not true. */
  filter(condition: Formula<In> | Opaque<[PlainOf<In>], boolean>, scope?: Scope): Pipeline<R, In> {
    if (condition instanceof Opaque) return this.keep(this.calling('filter', condition))
    const predicate = this.formula(condition, scope).json
    return this.keep((input) => ({ op: 'filter', input, predicate }))
  }

  /** Keep rows, as `filter` does. */
  where(condition: Formula<In>, scope?: Scope): Pipeline<R, In> {
    return this.filter(condition, scope)
  }

  /** Skip `offset` rows and keep the next `count`, in the dataset's order. */
  limit(count: number, offset = 0): Pipeline<R, In> {
    const window = rowsOf(count, offset)
    return this.keep((input) => ({ op: 'limit', input, ...window }))
  }

  take(count: number): Pipeline<R, In> {
    return this.limit(count)
  }

  head(count = 10): Pipeline<R, In> {
    return this.limit(count)
  }

  /** Order the rows: `sort('age', 'name:desc', col('a').desc())`. */
  sort(...keys: Key<R>[]): Pipeline<R, In> {
    const by = sortKeys(keys, 'sort')
    return this.keep((input) => ({ op: 'sort', input, keys: by }))
  }

  /** Keep the first `count` rows in the order of the keys. */
  topK(count: number, ...keys: Key<R>[]): Pipeline<R, In> {
    const by = sortKeys(keys, 'topK')
    return this.keep((input) => ({ op: 'top_k', input, keys: by, ...rowsOf(count, 0) }))
  }

  /** Keep one row of each set of duplicates, by all columns or these; the result is sorted. */
  distinct(...columns: (keyof R & string)[]): Pipeline<R, In> {
    const by = columns.length > 0 ? { columns } : {}
    return this.keep((input) => ({ op: 'distinct', input, ...by }))
  }

  /** Keep a fraction of the rows, or exactly `count`; the same rows for the same seed. */
  sample(options: { fraction?: number; count?: number; seed?: number }): Pipeline<R, In> {
    const { fraction, count, seed = 0 } = options
    if ((fraction === undefined) === (count === undefined))
      throw new UsageError('sample takes either a fraction or a count')
    const size = fraction === undefined ? { count: count ?? 0 } : { fraction: hexFloat(fraction) }
    return this.keep((input) => ({ op: 'sample', input, ...size, ...(seed !== 0 && { seed }) }))
  }

  /** Make one row of each item of a list; `outer` keeps rows whose list is empty. */
  explode(
    column: keyof R & string,
    options: { as?: string; outer?: boolean; position?: string } = {},
  ): Pipeline<AnyRow> {
    const { as, outer, position } = options
    const named = { ...(as !== undefined && { as }), ...(position !== undefined && { position }) }
    return this.grow((input) => ({
      op: 'explode',
      input,
      column,
      ...(outer && { outer: true as const }),
      ...named,
    }))
  }

  /** Fail the job unless all checks hold: `expect({ unique: ['id'], rows: '>0' })`. */
  expect(checks: { unique?: string[]; notNull?: string[]; rows?: string }): Pipeline<R, In> {
    const { unique, notNull, rows } = checks
    const kept = {
      ...(unique?.length && { unique }),
      ...(notNull?.length && { notNull }),
      ...(rows !== undefined && { rows }),
    }
    return this.keep((input) => ({ op: 'expect', input, ...kept }))
  }

  // Several datasets

  /** Join the rows whose keys are equal; the right side had better be the smaller one. */
  join<Other extends object, I>(
    other: Pipeline<Other, I>,
    on: On = [],
    how: JoinKind = 'inner',
    suffix = SUFFIX,
  ): Pipeline<R & Other> {
    this.checkSameNode(other)
    const pairs = joinPairs(on)
    return new Pipeline<R & Other>(this.runner, async () => ({
      op: 'join',
      ...(how !== 'inner' && { how }),
      left: await this.build(),
      right: await other.build(),
      ...(pairs.length > 0 && { on: pairs }),
      ...(suffix !== SUFFIX && { suffix }),
    }))
  }

  /** Append the rows of other pipelines. */
  union(...others: Pipeline<R>[]): Pipeline<R> {
    return this.united(others, {})
  }

  /** Append the rows of other pipelines; columns are matched by their names. */
  unionByName(...others: Pipeline<AnyRow>[]): Pipeline<AnyRow> {
    return this.united(others, { byName: true })
  }

  // Columns

  /** Add columns that window functions compute: `window({ n: rowNumber() }, { orderBy: 'at' })`. */
  window<F extends Record<string, WindowCall>>(
    functions: F,
    options: { partitionBy?: string | string[]; orderBy?: Key<R> | Key<R>[] } = {},
  ): Pipeline<R & Record<keyof F, unknown>> {
    const parts = [options.partitionBy ?? []].flat().map((name) => col(name).json)
    const keys = [options.orderBy ?? []].flat() as Key<R>[]
    const calls = Object.entries(functions).map(([name, { json }]) => ({ name, call: json }))
    return this.grow((input) => ({
      op: 'window',
      input,
      ...(parts.length > 0 && { partitionBy: parts }),
      ...(keys.length > 0 && { orderBy: sortKeys(keys, 'window') }),
      functions: calls,
    }))
  }

  /** Keep these columns: `select('a', 'b')`, and computed ones: `select('a', { c: col('b') })`. */
  select<N extends keyof R & string>(...columns: N[]): Pipeline<Pick<R, N>>
  select<F extends Record<string, Formula<In>>>(
    formulas: F,
  ): Pipeline<{ [Name in keyof F]: ValueOf<F[Name]> }>
  select<N extends keyof R & string, F extends Record<string, Formula<In>>>(
    ...columns: [...N[], F]
  ): Pipeline<Pick<R, N> & { [Name in keyof F]: ValueOf<F[Name]> }>
  select(...columns: (string | Record<string, Formula<In>>)[]): Pipeline<AnyRow> {
    const named = columns.flatMap((column) =>
      typeof column === 'string' ? [namedColumn(column)] : this.named(column),
    )
    if (named.length === 0) throw new UsageError('select needs at least one column')
    return this.grow((input) => ({ op: 'project', input, columns: named }))
  }

  /**
   * Compute new rows: the function returns one value, an array (`_0 _1 …`), or an object. Functions
   * of later steps receive what this one returned.
   *
   * @throws Unsupported if the function cannot be translated; the message names what was found.
   */
  map<Out>(fn: Opaque<[PlainOf<In>], Out>): Pipeline<MadeBy<Out>, InputBy<Out>>
  map<F>(formula: (row: In) => F, scope?: Scope): Pipeline<RowOf<F>, InputOf<F>>
  map<F extends Expr<unknown>>(formula: F): Pipeline<RowOf<F>, InputOf<F>>
  map(formula: Formula<In> | Opaque<[PlainOf<In>], unknown>, scope?: Scope): Pipeline<AnyRow> {
    if (formula instanceof Opaque) return this.calledFor('map', formula)
    const returned =
      formula instanceof Expr ? formula : translate(formula, this.placeholders(), scope)
    const [shape, columns] = returnedColumns(returned)
    if (columns.length === 0) throw new UsageError('a function returned an empty row')
    const names = columns.map(({ name }) => name)
    return this.grow((input) => ({ op: 'project', input, columns }), shape, names)
  }

  /** Add columns, or replace those of the same names; formulas see the columns as they were. */
  withColumns<F extends Record<string, Formula<In>>>(
    formulas: F,
    scope?: Scope,
  ): Pipeline<Omit<R, keyof F> & { [Name in keyof F]: ValueOf<F[Name]> }> {
    const columns = this.named(formulas, scope)
    if (columns.length === 0) throw new UsageError('withColumns needs at least one column')
    return this.grow((input) => ({ op: 'with_column', input, columns }))
  }

  withColumn<N extends string, F extends Formula<In>>(
    name: N,
    formula: F,
    scope?: Scope,
  ): Pipeline<Omit<R, N> & { [Name in N]: ValueOf<F> }> {
    return this.withColumns({ [name]: formula }, scope) as unknown as Pipeline<
      Omit<R, N> & { [Name in N]: ValueOf<F> }
    >
  }

  drop<N extends keyof R & string>(...names: N[]): Pipeline<Omit<R, N>> {
    return this.late(async (columns, input) => ({
      op: 'project',
      input,
      columns: without(await columns(), names).map(namedColumn),
    }))
  }

  /** Convert columns: `cast({ id: 'Utf8' })`; a value that does not fit fails the job. */
  cast(types: Partial<Record<keyof R & string, string>>): Pipeline<R> {
    const columns = Object.entries(types).map(([name, type]) => ({
      name,
      expr: col(name).cast(String(type)).json,
    }))
    return this.grow((input) => ({ op: 'with_column', input, columns }))
  }

  rename(names: Partial<Record<keyof R & string, string>>): Pipeline<AnyRow> {
    const pairs = Object.entries(names).map(([from, to]) => ({ from, to: String(to) }))
    return this.grow((input) => (pairs.length ? { op: 'rename', input, names: pairs } : input))
  }

  // Aggregates

  /** Group the rows; `.agg({ … })` aggregates the groups. */
  groupBy<K extends keyof R & string>(...keys: K[]): Groups<Pick<R, K>>
  groupBy<K extends keyof R & string, F extends Record<string, Formula<In>>>(
    ...keys: (K | F)[]
  ): Groups<Pick<R, K> & { [Name in keyof F]: ValueOf<F[Name]> }>
  groupBy(...keys: (string | Record<string, Formula<In>>)[]): Groups<AnyRow> {
    const named = keys.flatMap((key) =>
      typeof key === 'string' ? [namedColumn(key)] : this.named(key),
    )
    if (named.length === 0) throw new UsageError('groupBy needs at least one column')
    return new Groups((aggregates) => this.aggregated(named, aggregates))
  }

  /** Aggregate all rows into one: `agg({ total: col('distance').sum() })`. */
  agg<A extends Aggregates>(aggregates: A): Pipeline<AggregateRow<A>> {
    return this.aggregated([], aggregates)
  }

  count(): Pipeline<{ count: number }> {
    return this.agg({ count: count() })
  }

  /** Sum a column; its name may be left out when there is only one. */
  sum(column?: keyof R & string): Pipeline<{ sum: number }> {
    return this.single('sum', 'sum', column)
  }

  min(column?: keyof R & string): Pipeline<{ min: unknown }> {
    return this.single('min', 'min', column)
  }

  max(column?: keyof R & string): Pipeline<{ max: unknown }> {
    return this.single('max', 'max', column)
  }

  mean(column?: keyof R & string): Pipeline<{ mean: number }> {
    return this.single('mean', 'avg', column)
  }

  /**
   * Fold the rows: `reduce((total, r) => total + r.price * r.qty, 0)`. The function is translated
   * to an aggregate: sums, counts, minima and maxima.
   *
   * @throws Unsupported if it is another fold.
   */
  reduce<A>(fold: Opaque<[A, PlainOf<In>], A>, initial: A & Constant): Pipeline<{ value: A }>
  reduce<A = number>(
    fold: (total: A, row: In) => unknown,
    initial?: A & Constant,
    scope?: Scope,
  ): Pipeline<AnyRow>
  reduce(fold: unknown, initial?: Constant, scope?: Scope): unknown {
    if (fold instanceof Opaque) return this.calledFor('reduce', fold, initial)
    const placeholders = [Accumulator.start(), ...this.placeholders()]
    const returned = translate(fold as (...values: never[]) => unknown, placeholders, scope)
    const found = returned instanceof Accumulator ? returned.fold() : null
    if (found === null) throw new UsageError('reduce needs a function that returns its accumulator')
    if (initial !== undefined) return this.folded(found, initial)
    if (found.constant || found.term === null || this.shape === 'row')
      throw new UsageError(
        'this fold needs an initial value: without one it starts with a whole row',
        'reduce(f, 0), or map to one value first',
      )
    return this.agg({ [found.name]: new Agg({ agg: found.name, arg: found.term.json }) })
  }

  // Running

  /** The plan's JSON; asks for the dataset's columns where a verb needs them. */
  async plan(): Promise<PlanJson> {
    const node = await this.build()
    if (holdsFunction(node))
      throw new Unsupported(
        'a function that is called with rows is in no plan',
        'collect() calls it here',
      )
    return planOf(node)
  }

  /** The SHA-256 of the plan's canonical text, as the node computes it. */
  async hash(): Promise<string> {
    return planHash(await this.plan())
  }

  /** The names of the result's columns. */
  async columns(): Promise<string[]> {
    return columnNames(await this.build(), (source) => this.runner.columns(source))
  }

  /** Start the job and return at once. */
  async submit(options: JobOptions = {}): Promise<Job<R>> {
    return this.runner.submit<R>(planOf(await this.build()), options)
  }

  /** Run on the node and wait for the result; aborting `options.signal` cancels the job. */
  async distribute(options: JobOptions = {}): Promise<Result<R>> {
    return (await this.submit(options)).result(options)
  }

  collect(options: JobOptions = {}): Promise<Result<R>> {
    return this.distribute(options)
  }

  /** Run, and yield the rows page by page; the result may be larger than memory. */
  async *rows(options: JobOptions = {}): AsyncGenerator<R> {
    yield* (await this.submit(options)).rows(options)
  }

  [Symbol.asyncIterator](): AsyncGenerator<R> {
    return this.rows()
  }

  // Building plans

  private grow<T extends object, I = Cells<T>>(
    step: (input: PlanNode) => PlanNode,
    shape: Shape = 'row',
    mapped: readonly string[] | null = null,
  ): Pipeline<T, I> {
    return new Pipeline<T, I>(this.runner, async () => step(await this.build()), shape, mapped)
  }

  /** A step that calls a function; its rows have the columns that the function returns. */
  private calledFor<T extends object, I>(
    verb: 'map' | 'reduce',
    fn: Opaque<never[], unknown>,
    initial?: Constant,
  ): Pipeline<T, I> {
    const shape = typeof fn.returns === 'string' ? 'value' : 'row'
    const names = Object.keys(typeof fn.returns === 'string' ? { value: 0 } : (fn.returns ?? {}))
    return this.grow<T, I>(this.calling(verb, fn, initial), shape, names)
  }

  private calling(
    verb: OpaqueNode['verb'],
    fn: Opaque<never[], unknown>,
    initial: Constant = null,
  ): (input: PlanNode) => PlanNode {
    const called = opaqueNode(verb, fn, this.shape, initial)
    if (this.runner.callsFunctions) return called
    if (!this.runner.sendsFunctions)
      throw new Unsupported(`${verb} of a function that is called with rows is not run here`)
    checkSent(verb, fn)
    return (input) => javascriptNode(called(input))
  }

  /** Append a step that does not change the form of the rows. */
  private keep(step: (input: PlanNode) => PlanNode): Pipeline<R, In> {
    return this.grow<R, In>(step, this.shape, this.mapped)
  }

  private late<T extends object>(build: Build): Pipeline<T> {
    return new Pipeline<T>(this.runner, async () => build(() => this.columns(), await this.build()))
  }

  private united<T extends object, U extends object>(
    others: readonly Pipeline<U>[],
    options: { byName?: true },
  ): Pipeline<T> {
    for (const other of others) this.checkSameNode(other)
    return new Pipeline<T>(this.runner, async () => ({
      op: 'union',
      inputs: [await this.build(), ...(await Promise.all(others.map((other) => other.build())))],
      ...options,
    }))
  }

  private aggregated<T extends object>(keys: NamedExpr[], aggregates: Aggregates): Pipeline<T> {
    const aggs = Object.entries(aggregates).map(([name, agg]) => {
      if (agg instanceof Agg) return { name, agg: agg.aggregateJson }
      throw new UsageError(
        `${name} is not an aggregate`,
        'use .sum(), .min(), .count() on a column',
      )
    })
    if (aggs.length + keys.length === 0) throw new UsageError('agg needs at least one aggregate')
    return this.grow((input) => ({ op: 'aggregate', input, keys, aggs }))
  }

  private single<N extends string, V>(
    name: N,
    agg: string,
    column: string | undefined,
  ): Pipeline<Record<N, V>> {
    return this.late(async (columns, input) => {
      const of = column ?? onlyColumn(await columns(), name)
      return { op: 'aggregate', input, keys: [], aggs: [{ name, agg: { agg, arg: { col: of } } }] }
    })
  }

  /** Aggregate, then apply the initial value: once, however many shards there are. */
  private folded(found: Fold, initial: Constant): Pipeline<AnyRow> {
    const { name, term } = found
    const counted = this.agg({
      rows: count(),
      ...(term && { found: new Agg({ agg: name, arg: term.json }) }),
    })
    const answer = name === 'sum' ? summed(found, initial) : extreme(name, initial)
    const columns = [{ name, expr: answer.json }]
    return counted.grow((input) => ({ op: 'project', input, columns }), 'value', [name])
  }

  private formula(formula: Formula<In>, scope?: Scope): Expr {
    if (formula instanceof Expr) return formula
    if (typeof formula !== 'function')
      throw new UsageError('a formula is an expression or a function', "col('a').gt(5)")
    return exprOf(operand(translate(formula, this.placeholders(), scope)))
  }

  private named(formulas: Record<string, Formula<In>>, scope?: Scope): NamedExpr[] {
    return Object.entries(formulas).map(([name, formula]) => ({
      name,
      expr: this.formula(formula, scope).json,
    }))
  }

  private placeholders(): unknown[] {
    const values = (this.mapped ?? []).map((name) => col(name))
    if (this.shape === 'row') return [new Row()]
    return this.shape === 'tuple' ? [values] : [values[0]]
  }

  private checkSameNode<U extends object, I>(other: Pipeline<U, I>): void {
    if (other.runner !== this.runner)
      throw new UsageError(
        'the two pipelines belong to different nodes',
        'create both from the same Elytra object',
      )
  }
}

/** Grouped rows, to be aggregated with `agg`. */
export class Groups<Keys extends object> {
  constructor(
    private readonly aggregate: <T extends object>(aggregates: Aggregates) => Pipeline<T>,
  ) {}

  agg<A extends Aggregates>(aggregates: A): Pipeline<Keys & AggregateRow<A>> {
    return this.aggregate(aggregates)
  }

  count(): Pipeline<Keys & { count: number }> {
    return this.aggregate({ count: count() })
  }
}

function namedColumn(name: string): NamedExpr {
  return { name, expr: { col: name } }
}

function rowsOf(count: number, offset: number): { count: number; offset?: number } {
  for (const number of [count, offset])
    if (!Number.isSafeInteger(number) || number < 0)
      throw new UsageError(`${number} is not a number of rows`)
  return { count, ...(offset > 0 && { offset }) }
}

function returnedColumns(returned: unknown): [Shape, NamedExpr[]] {
  if (Array.isArray(returned))
    return ['tuple', returned.map((value, at) => namedValue(`_${at}`, value))]
  const isRecord = typeof returned === 'object' && returned !== null
  if (
    isRecord &&
    !(returned instanceof Expr) &&
    Object.getPrototypeOf(returned) === Object.prototype
  )
    return ['row', Object.entries(returned).map(([name, value]) => namedValue(name, value))]
  const name = (returned instanceof Expr && returned.columnName) || 'value'
  return ['value', [namedValue(name, returned)]]
}

function namedValue(name: string, value: unknown): NamedExpr {
  return { name, expr: exprOf(operand(value)).json }
}

function summed({ term, constant }: Fold, initial: Constant): Expr {
  const start = lit(initial)
  const total = term ? coalesce(col('found'), 0).add(start) : start
  return constant ? call('add', total, col('rows').mul(constant)) : total
}

function extreme(name: string, initial: Constant): Expr {
  return (name === 'min' ? least : greatest)(col('found'), initial)
}
