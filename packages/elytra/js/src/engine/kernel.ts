/** Kernels: filters and computed columns of a plan, as one generated loop over a batch. */

import type { ExprJson, PlanNode } from '../plan/json.ts'
import { room, type Batch, type Column } from './batch.ts'
import { Emitter, type Emitted, type Layout } from './emit.ts'
import * as runtime from './runtime.ts'
import { typed, type Typed } from './typed.ts'
import { isWide, TypeMismatch, typeText, type Field, type Type } from './types.ts'

/** A step that computes each row by itself. */
export type RowStep = Extract<PlanNode, { op: 'filter' | 'project' | 'with_column' | 'rename' }>

interface TypedStep {
  /** Drops the rows for which it is not true; null for a step that computes columns. */
  condition: Typed | null
  /** All columns after the step: computed, or passed on under a name. */
  columns: readonly { field: Field; value: Typed }[]
}

/** The generated function: it fills the output columns, and returns the number of their rows. */
type Loop = (
  rows: number,
  columns: readonly unknown[],
  nulls: readonly unknown[],
  constants: readonly unknown[],
  outputs: readonly unknown[],
  outputNulls: readonly unknown[],
) => number

/** Runs row steps over batches; loops are generated for each layout of columns that occurs. */
export class Kernel {
  readonly fields: readonly Field[]
  private readonly steps: readonly TypedStep[]
  private readonly used: readonly number[]
  private readonly loops = new Map<string, [Loop, readonly unknown[]]>()

  /**
   * @param steps from the source up.
   * @param input the columns of the batches.
   */
  constructor(
    steps: readonly RowStep[],
    private readonly input: readonly Field[],
  ) {
    let fields = input
    const found: TypedStep[] = []
    for (const step of steps) {
      const next = typedStep(step, fields)
      found.push(next)
      fields = next.columns.map(({ field }) => field)
    }
    this.fields = fields
    const [kept, names] = pruned(found, fields)
    this.steps = kept
    this.used = input.flatMap(({ name }, at) => (names.has(name) ? [at] : []))
  }

  /** The names of the input's columns that are read. */
  get columns(): string[] {
    return this.used.map((at) => this.input[at]?.name ?? '')
  }

  /**
   * The rows that remain, with the computed columns.
   *
   * @throws ValueOutOfRange if an expression has no value for a row.
   */
  run(batch: Batch): Batch {
    try {
      return this.attempt(batch, false)
    } catch (problem) {
      if (problem !== runtime.WIDEN) throw problem
      return this.attempt(batch, true)
    }
  }

  private attempt(batch: Batch, isWide: boolean): Batch {
    const layouts = this.used.map((at) => layoutOf(batch.columns[at]))
    if (!isWide && layouts.some((layout) => layout.isBig)) throw runtime.WIDEN
    const key = `${isWide}${layouts.map(({ hasNulls, isBig }) => `${+hasNulls}${+isBig}`).join()}`
    const found = this.loops.get(key) ?? this.generate(layouts, isWide)
    this.loops.set(key, found)
    const [loop, constants] = found
    const columns: Column[] = this.fields.map(({ type }) => ({
      values: room(type, batch.rows, isWide),
      nulls: new Uint8Array(batch.rows),
    }))
    const inputs = this.used.map((at) => batch.columns[at])
    const rows = loop(
      batch.rows,
      inputs.map((column) => column?.values),
      inputs.map((column) => column?.nulls ?? null),
      constants,
      columns.map(({ values }) => values),
      columns.map(({ nulls }) => nulls),
    )
    return { fields: this.fields, columns: columns.map((column) => cut(column, rows)), rows }
  }

  private generate(layouts: readonly Layout[], isWide: boolean): [Loop, readonly unknown[]] {
    const loads = this.used.map((at, index) => {
      const type = this.input[at]?.type
      const layout = layouts[index]
      if (!type || !layout) throw new Error('a column without a layout')
      return [this.input[at]?.name ?? '', load(type, layout, index, isWide)] as const
    })
    const emitter = new Emitter(
      isWide,
      new Map(loads.map(([name, { emitted }]) => [name, emitted])),
    )
    for (const [, { lines }] of loads) for (const line of lines) emitter.line(line)
    for (const step of this.steps) {
      if (step.condition) {
        const { value, isNull } = emitter.emit(step.condition)
        emitter.line(`if (${isNull === 'false' ? '' : `${isNull} || `}!${value}) continue`)
        continue
      }
      emitter.columns = new Map(
        step.columns.map(({ field, value }) => [field.name, emitter.emit(value)] as const),
      )
    }
    this.fields.forEach(({ name }, at) => {
      const made = emitter.columns.get(name)
      if (!made) throw new Error('a column that was not computed')
      const isBool = this.fields[at]?.type.name === 'Bool'
      const stored = isBool ? `${made.value} ? 1 : 0` : made.value
      if (made.isNull === 'false') emitter.line(`O[${at}][row] = ${stored}`)
      else emitter.line(`if (${made.isNull}) N[${at}][row] = 1; else O[${at}][row] = ${stored}`)
    })
    return [compile(emitter.lines), emitter.constants]
  }
}

function compile(lines: readonly string[]): Loop {
  const code = `
    'use strict'
    const W = () => { throw R.WIDEN }
    return (rows, C, M, K, O, N) => {
      let row = 0
      for (let i = 0; i < rows; i += 1) {
        ${lines.join('\n        ')}
        row += 1
      }
      return row
    }`
  // The code has texts of `emit` and numbers only; names and constants of the plan are passed in.
  return (new Function('R', code) as (helpers: typeof runtime) => Loop)(runtime)
}

function load(
  type: Type,
  { hasNulls, isBig }: Layout,
  index: number,
  wide: boolean,
): { emitted: Emitted; lines: string[] } {
  const value = `c${index}`
  const isNull = hasNulls ? `n${index}` : 'false'
  const stored = `C[${index}][i]`
  const read =
    type.name === 'Bool'
      ? `${stored} === 1`
      : wide && isWide(type) && !isBig
        ? `BigInt(${stored})`
        : stored
  const lines = [`const ${value} = ${read}`]
  if (hasNulls) lines.push(`const ${isNull} = M[${index}][i] === 1`)
  return { emitted: { value, isNull }, lines }
}

function layoutOf(column: Column | undefined): Layout {
  const values = column?.values
  return {
    hasNulls: Boolean(column?.nulls),
    isBig: values instanceof BigInt64Array || values instanceof BigUint64Array,
  }
}

function cut({ values, nulls }: Column, rows: number): Column {
  const isPlain = Array.isArray(values)
  const kept = isPlain ? values.slice(0, rows) : values.subarray(0, rows)
  const marks = nulls?.subarray(0, rows)
  return { values: kept, nulls: marks?.includes(1) ? marks : null }
}

function typedStep(step: RowStep, fields: readonly Field[]): TypedStep {
  const passed = fields.map((field) => ({ field, value: passedOn(field) }))
  switch (step.op) {
    case 'filter': {
      const condition = typed(step.predicate, fields)
      if (condition.type.name !== 'Bool' && condition.type.name !== 'Null')
        throw new TypeMismatch(`filter takes a condition, found ${typeText(condition.type)}`)
      return { condition, columns: passed }
    }
    case 'project':
      return { condition: null, columns: step.columns.map((each) => computed(each, fields)) }
    case 'with_column': {
      const made = new Map(step.columns.map((each) => [each.name, computed(each, fields)]))
      const replaced = passed.map((each) => made.get(each.field.name) ?? each)
      const added = [...made.values()].filter(
        ({ field }) => !fields.some(({ name }) => name === field.name),
      )
      return { condition: null, columns: [...replaced, ...added] }
    }
    case 'rename': {
      const names = new Map(step.names.map(({ from, to }) => [from, to]))
      const columns = passed.map(({ field, value }) => ({
        field: { ...field, name: names.get(field.name) ?? field.name },
        value,
      }))
      return { condition: null, columns }
    }
  }
}

function computed(
  { name, expr }: { name: string; expr: ExprJson },
  fields: readonly Field[],
): { field: Field; value: Typed } {
  const value = typed(expr, fields)
  return { field: { name, type: value.type }, value }
}

function passedOn({ name, type }: Field): Typed {
  return { op: 'column', type, args: [], value: name, strict: true, fallible: false }
}

/** The steps without columns that nobody needs, and the names of the input that they read. */
function pruned(
  steps: readonly TypedStep[],
  output: readonly Field[],
): [TypedStep[], ReadonlySet<string>] {
  let needed = new Set(output.map(({ name }) => name))
  const kept: TypedStep[] = []
  for (const step of [...steps].reverse()) {
    if (step.condition) {
      for (const name of columnsOf(step.condition)) needed.add(name)
      kept.unshift(step)
      continue
    }
    // One that may fail stays: the plan fails with it, needed or not.
    const columns = step.columns.filter(
      ({ field, value }) => needed.has(field.name) || value.fallible,
    )
    needed = new Set(columns.flatMap(({ value }) => columnsOf(value)))
    kept.unshift({ ...step, columns })
  }
  return [kept, needed]
}

function columnsOf(node: Typed): string[] {
  return node.op === 'column' ? [String(node.value)] : node.args.flatMap(columnsOf)
}
