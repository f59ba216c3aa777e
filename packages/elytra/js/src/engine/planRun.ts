/**
 * A plan over batches of one source: rows stream through kernels, up to the first step that needs
 * all of them.
 *
 *   scan -> kernel -> join | aggregate | sort | top_k | distinct | limit -> kernel -> …
 */

import type { OutputColumn } from '../arrow/write.ts'
import { Unsupported, UsageError } from '../errors.ts'
import type { PlanNode, SortKeyJson } from '../plan/json.ts'
import { accumulatorOf, type Accumulator } from './aggregates.ts'
import { sliced, valueAt, type Batch, type Column } from './batch.ts'
import { columnFrom, Groups } from './groups.ts'
import { joined, reordered } from './joined.ts'
import { JoinStage, sideOf } from './joins.ts'
import { FusedLoop } from './fused.ts'
import { Kernel } from './kernel.ts'
import { RowSteps, type RowStep } from './rowSteps.ts'
import type { Value } from './literals.ts'
import { compareValues } from './order.ts'
import { typed } from './typed.ts'
import { typeText, type Field } from './types.ts'

/** Rows of a plan without an aggregate that one run holds in memory. */
const ROWS_MAX = 5_000_000

type Step = Exclude<PlanNode, { op: 'scan' | 'union' | 'opaque' | 'custom' }>
/** The right sides of joins, by their names. */
export type Sides = ReadonlyMap<string, Batch>
type AggregateNode = Extract<PlanNode, { op: 'aggregate' }>

/** One part of a plan: it takes batches, and has rows for the next part. */
interface Stage {
  readonly fields: readonly Field[]
  /** The rows that are ready for the next stage; null for none yet. */
  add(batch: Batch): Batch | null
  /** The rows that were held back until the end. */
  finish(): Batch | null
  /** Whether no further row changes the result. */
  readonly isFull: boolean
}

/** Runs a plan over the batches of its source. */
export class PlanRun {
  private readonly stages: readonly Stage[]
  private readonly results: Batch[] = []
  private rows = 0

  /**
   * @param plan a chain of steps over one scan.
   * @param input the columns of its batches, in order.
   * @throws Unsupported if it has a step, a function or a type that is not computed in JavaScript.
   */
  constructor(plan: PlanNode, input: readonly Field[], sides: Sides = new Map()) {
    this.stages = stagesOf(plan, input, sides)
  }

  /** The columns of the result. */
  get fields(): readonly Field[] {
    return this.stages[this.stages.length - 1]?.fields ?? []
  }

  /** The columns of a source that a plan reads: a source need not have the others. */
  static inputOf(plan: PlanNode, fields: readonly Field[]): readonly Field[] {
    const { rowSteps } = new PlanRun(plan, fields)
    if (!rowSteps) return fields
    const read = new Set(rowSteps.columns)
    return fields.filter(({ name }) => read.has(name))
  }

  /** Whether a limit is reached: further batches change nothing. */
  get isFull(): boolean {
    return this.stages.some((stage) => stage.isFull)
  }

  /** Whether batches are needed after `add`, so that their arrays must not be filled again. */
  get keepsBatches(): boolean {
    return this.rowSteps === null
  }

  /** The steps that read the source; null if its batches go to a stage as they are. */
  private get rowSteps(): RowSteps | null {
    const [first] = this.stages
    if (first instanceof RowStage) return first.kernel.steps
    return first instanceof AggregateStage ? first.steps : null
  }

  add(batch: Batch): void {
    this.pass(batch, 0)
  }

  /** The rows that are ready, which the run then no longer holds. */
  drain(): Batch[] {
    this.rows = 0
    return this.results.splice(0)
  }

  /** The result, once all batches were added. */
  finish(): Batch {
    this.stages.forEach((stage, at) => {
      const held = stage.finish()
      if (held) this.pass(held, at + 1)
    })
    return joined(this.fields, this.results)
  }

  /** The states of a plan whose last step is a partial aggregate, once all batches were added. */
  finishStates(): OutputColumn[] {
    const last = this.stages[this.stages.length - 1]
    if (!(last instanceof AggregateStage)) throw new UsageError('the plan has no partial aggregate')
    this.stages.slice(0, -1).forEach((stage, at) => {
      const held = stage.finish()
      if (held) this.pass(held, at + 1)
    })
    return last.states()
  }

  private pass(batch: Batch, from: number): void {
    let rows: Batch | null = batch
    for (let at = from; at < this.stages.length && rows; at += 1)
      rows = this.stages[at]?.add(rows) ?? null
    if (!rows || rows.rows === 0) return
    this.rows += rows.rows
    if (this.rows > ROWS_MAX)
      throw new UsageError(
        `the result has more than ${ROWS_MAX} rows`,
        'add a limit or an aggregate',
      )
    this.results.push(rows)
  }
}

/** The steps of a plan, from the source up. */
export function chainOf(plan: PlanNode): Step[] {
  const steps: Step[] = []
  let node = plan
  while (node.op !== 'scan') {
    if (node.op === 'union' || node.op === 'opaque' || node.op === 'custom')
      throw new Unsupported(`${node.op} is not computed in JavaScript`)
    steps.unshift(node)
    node = node.op === 'join' ? node.left : node.input
  }
  return steps
}

function stagesOf(plan: PlanNode, input: readonly Field[], sides: Sides): Stage[] {
  const stages: Stage[] = []
  let fields = input
  let rowSteps: RowStep[] = []
  const push = (stage: Stage): void => {
    stages.push(stage)
    fields = stage.fields
    rowSteps = []
  }
  for (const step of chainOf(plan)) {
    if (isRowStep(step)) {
      rowSteps.push(step)
    } else if (step.op === 'aggregate') {
      push(new AggregateStage(step, new RowSteps([...rowSteps, operandsOf(step)], fields)))
    } else {
      if (rowSteps.length > 0) push(new RowStage(Kernel.of(rowSteps, fields)))
      push(stageOf(step, fields, sides))
    }
  }
  if (rowSteps.length > 0 || stages.length === 0) push(new RowStage(Kernel.of(rowSteps, fields)))
  return stages
}

function isRowStep(step: Step): step is RowStep {
  return ['filter', 'project', 'with_column', 'rename'].includes(step.op)
}

/** The keys and arguments of an aggregate, as columns. */
function operandsOf(step: AggregateNode): RowStep {
  const columns = [
    ...step.keys.map(({ expr }, at) => ({ name: `k${at}`, expr })),
    ...step.aggs.flatMap(({ agg }, at) => (agg.arg ? [{ name: `a${at}`, expr: agg.arg }] : [])),
  ]
  // Rows are counted by a column too: one that costs nothing.
  const counted =
    columns.length > 0 ? columns : [{ name: 'one', expr: { lit: true, type: 'Bool' } }]
  return { op: 'project', input: step.input, columns: counted }
}

function stageOf(step: Step, fields: readonly Field[], sides: Sides): Stage {
  switch (step.op) {
    case 'join': {
      const side = sides.get(sideOf(step))
      if (side) return new JoinStage(step, fields, side)
      break
    }
    case 'limit':
      return new LimitStage(fields, step.count, step.offset ?? 0)
    case 'sort':
      return new SortStage(fields, step.keys, Infinity, 0)
    case 'top_k':
      return new SortStage(fields, step.keys, step.count, step.offset ?? 0)
    case 'distinct':
      return new DistinctStage(fields, step.columns ?? fields.map(({ name }) => name))
  }
  throw new Unsupported(`${step.op} is not computed in JavaScript`)
}

class RowStage implements Stage {
  readonly isFull = false

  constructor(readonly kernel: Kernel) {}

  get fields(): readonly Field[] {
    return this.kernel.fields
  }

  add(batch: Batch): Batch {
    return this.kernel.run(batch)
  }

  finish(): null {
    return null
  }
}

class AggregateStage implements Stage {
  readonly isFull = false
  readonly fields: readonly Field[]
  private readonly groups: Groups
  private readonly accumulators: readonly { made: Accumulator; column: string | null }[]
  private readonly keys: number
  private readonly fused: FusedLoop
  /** For batches that the loop does not compute. It keeps no rows, so the same arrays are filled again. */
  private readonly kernel: Kernel

  /** @param steps they end with `operandsOf(step)`. */
  constructor(
    step: AggregateNode,
    readonly steps: RowSteps,
  ) {
    if (step.phase === 'final') throw new Unsupported('a final phase is computed by the node')
    this.keys = step.keys.length
    const keyFields = step.keys.map(({ name }, at) => ({
      name,
      type: fieldAt(steps.fields, `k${at}`).type,
    }))
    this.groups = new Groups(keyFields)
    this.accumulators = step.aggs.map(({ agg }, at) => {
      const column = agg.arg ? `a${at}` : null
      const type = column === null ? null : fieldAt(steps.fields, column).type
      return { made: accumulatorOf(agg, type), column }
    })
    const results = this.accumulators.map(({ made: { type } }, at) => {
      return { name: step.aggs[at]?.name ?? '', type }
    })
    this.fields = [...keyFields, ...results]
    this.kernel = new Kernel(steps, true)
    const keys = keyFields.map((_, at) => `k${at}`)
    this.fused = new FusedLoop(steps, keys, this.groups, this.accumulators)
  }

  add(batch: Batch): null {
    const added = this.fused.add(batch)
    if (added === 0) this.addColumns(this.kernel.run(batch))
    else if (added < batch.rows) this.addColumns(this.kernel.run(sliced(batch, added, Infinity)))
    return null
  }

  private addColumns({ fields, columns, rows }: Batch): void {
    const groups = this.groups.assign(columns.slice(0, this.keys), rows)
    for (const { made, column } of this.accumulators) {
      const at = fields.findIndex(({ name }) => name === column)
      made.add(groups, columns[at] ?? null, this.groups.count)
    }
  }

  /** The groups' keys, and the states of the aggregates. */
  states(): OutputColumn[] {
    const { order, columns } = this.groups.sorted()
    const keys = columns.map((column, at) => {
      const { name, type } = this.fields[at] as Field
      const values = Array.from(order, (_, place) => valueAt(column, type, place))
      return { name, type: typeText(type), values }
    })
    const parts = this.accumulators.flatMap(({ made }, at) => {
      const { name } = this.fields[this.keys + at] as Field
      if (!made.state) throw new Unsupported(`the state of ${name} is not computed in JavaScript`)
      return made.state.map(({ part, type, of }) => ({
        name: `${name}$${part}`,
        type,
        values: Array.from(order, of),
      }))
    })
    return [...keys, ...parts]
  }

  finish(): Batch {
    const { order, columns } = this.groups.sorted()
    const values = this.accumulators.map(({ made }) =>
      columnFrom(
        made.type,
        Array.from(order, (group) => made.value(group)),
      ),
    )
    return { fields: this.fields, columns: [...columns, ...values], rows: order.length }
  }
}

class LimitStage implements Stage {
  private seen = 0

  constructor(
    readonly fields: readonly Field[],
    private readonly count: number,
    private readonly offset: number,
  ) {}

  get isFull(): boolean {
    return this.seen >= this.offset + this.count
  }

  add(batch: Batch): Batch {
    const from = Math.max(0, this.offset - this.seen)
    const room = Math.max(0, this.offset + this.count - Math.max(this.seen, this.offset))
    this.seen += batch.rows
    return sliced(batch, from, room)
  }

  finish(): null {
    return null
  }
}

/** Holds all rows; of a top-k the best ones so far. */
class SortStage implements Stage {
  readonly isFull = false
  private held: Batch[] = []
  private rows = 0

  constructor(
    readonly fields: readonly Field[],
    private readonly keys: readonly SortKeyJson[],
    private readonly count: number,
    private readonly offset: number,
  ) {
    for (const { expr } of keys) typed(expr, fields) // a mistake is found before the rows come
  }

  add(batch: Batch): null {
    this.held.push(batch)
    this.rows += batch.rows
    const kept = this.count + this.offset
    if (this.rows > Math.max(2 * kept, 65_536)) this.keep(kept)
    if (this.rows > ROWS_MAX)
      throw new UsageError(`a sort of more than ${ROWS_MAX} rows`, 'run the pipeline on the node')
    return null
  }

  finish(): Batch {
    this.keep(this.count + this.offset)
    const [all] = this.held
    return sliced(all ?? joined(this.fields, []), this.offset, this.count)
  }

  private keep(count: number): void {
    const all = joined(this.fields, this.held)
    const order = this.orderOf(all).subarray(0, Math.min(count, all.rows))
    this.held = [reordered(all, order)]
    this.rows = order.length
  }

  /** Rows with equal keys stay in the order of the input: the sort is stable. */
  private orderOf(batch: Batch): Int32Array {
    const columns = this.keys.map(({ expr }, at) => ({ name: `k${at}`, expr }))
    const kernel = Kernel.of([{ op: 'project', input: SOURCE, columns }], this.fields)
    const made = kernel.run(batch)
    const values = made.columns.map((column, at) => {
      const type = fieldAt(made.fields, `k${at}`).type
      return Array.from({ length: batch.rows }, (_, row) => valueAt(column, type, row))
    })
    const order = Int32Array.from({ length: batch.rows }, (_, row) => row)
    return order.sort((a, b) => this.compare(values, a, b) || a - b)
  }

  private compare(values: readonly (Value | null)[][], a: number, b: number): number {
    for (const [at, { descending = false, nullsFirst = false }] of this.keys.entries()) {
      const [one, two] = [values[at]?.[a] ?? null, values[at]?.[b] ?? null]
      const order =
        descending && one !== null && two !== null
          ? compareValues(two, one)
          : compareValues(one, two, nullsFirst)
      if (order !== 0) return order
    }
    return 0
  }
}

/** The first row of each set of rows that agree in some columns, sorted by these. */
class DistinctStage implements Stage {
  readonly isFull = false
  private readonly groups: Groups
  private readonly places: readonly number[]
  private readonly firsts: Batch[] = []

  constructor(
    readonly fields: readonly Field[],
    columns: readonly string[],
  ) {
    this.places = columns.map((name) => fields.indexOf(fieldAt(fields, name)))
    this.groups = new Groups(columns.map((name) => fieldAt(fields, name)))
  }

  add(batch: Batch): null {
    const before = this.groups.count
    const columns = this.places.map((at) => batch.columns[at] as Column)
    const groups = this.groups.assign(columns, batch.rows)
    let next = before
    const first: number[] = []
    groups.forEach((group, row) => {
      if (group !== next) return
      first.push(row)
      next += 1
    })
    if (first.length > 0) this.firsts.push(reordered(batch, Int32Array.from(first)))
    return null
  }

  finish(): Batch {
    return reordered(joined(this.fields, this.firsts), this.groups.sorted().order)
  }
}

const SOURCE = { op: 'scan', source: { dataset: '' } } as const

function fieldAt(fields: readonly Field[], name: string): Field {
  const found = fields.find((field) => field.name === name)
  if (found) return found
  throw new UsageError(`there is no column ${JSON.stringify(name)}`)
}
