/** Steps that compute each row by itself, with their types, and the code of a loop over them. */

import type { ExprJson, PlanNode } from '../plan/json.ts'
import type { Batch, Column } from './batch.ts'
import { columnsOf, Emitter, type Emitted, type Layout } from './emit.ts'
import { typed, type Typed } from './typed.ts'
import { isWide, TypeMismatch, typeText, type Field, type Type } from './types.ts'

/** A step that computes each row by itself. */
export type RowStep = Extract<PlanNode, { op: 'filter' | 'project' | 'with_column' | 'rename' }>

export interface TypedStep {
  /** Drops the rows for which it is not true; null for a step that computes columns. */
  condition: Typed | null
  /** All columns after the step: computed, or passed on under a name. */
  columns: readonly { field: Field; value: Typed }[]
}

/** Row steps over the columns of a source, without what nobody needs. */
export class RowSteps {
  /** The columns after the last step. */
  readonly fields: readonly Field[]
  private readonly steps: readonly TypedStep[]
  /** The places of the input's columns that are read. */
  private readonly used: readonly number[]

  /** @param steps from the source up. */
  constructor(
    steps: readonly (RowStep | TypedStep)[],
    private readonly input: readonly Field[],
  ) {
    let fields = input
    const found: TypedStep[] = []
    for (const step of steps) {
      const next = 'condition' in step ? step : typedStep(step, fields)
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

  /** The columns of a batch that are read. */
  inputs({ columns }: Batch): (Column | undefined)[] {
    return this.used.map((at) => columns[at])
  }

  /** The statements of a row; the emitter has the variables of the columns after the last step. */
  emit(layouts: readonly Layout[], isWideKernel: boolean): Emitter {
    const loads = new Map(
      this.used.map((at, index) => {
        const field = this.input[at]
        const layout = layouts[index]
        if (!field || !layout) throw new Error('a column without a layout')
        return [field.name, load(field.type, layout, index, isWideKernel)]
      }),
    )
    const columns = new Map([...loads].map(([name, { emitted }]) => [name, emitted]))
    const emitter = new Emitter(isWideKernel, columns)
    // A column is loaded in front of the first step that reads it: behind the filters before it.
    const loadThose = (names: Iterable<string>): void => {
      for (const name of names) {
        for (const line of loads.get(name)?.lines ?? []) emitter.line(line)
        loads.delete(name)
      }
    }
    for (const step of this.steps) {
      if (step.condition) {
        if (emitter.columns === columns) loadThose(columnsOf(step.condition))
        const { value, isNull } = emitter.emit(step.condition)
        emitter.line(`if (${isNull === 'false' ? '' : `${isNull} || `}!${value}) continue`)
        continue
      }
      loadThose([...loads.keys()])
      emitter.columns = new Map(
        step.columns.map(({ field, value }) => [field.name, emitter.emit(value)] as const),
      )
    }
    loadThose([...loads.keys()])
    return emitter
  }
}

function load(
  type: Type,
  { hasNulls, isBig, isCoded, isWords }: Layout,
  index: number,
  wide: boolean,
): { emitted: Emitted; lines: string[] } {
  const value = `c${index}`
  const isNull = hasNulls ? `n${index}` : 'false'
  const stored = `C${index}[i]`
  const read =
    type.name === 'Bool'
      ? `${stored} === 1`
      : wide && isWide(type) && !isBig
        ? `BigInt(${stored})`
        : stored
  const lines = isWords ? wordLines(type, index) : [`const ${value} = ${read}`]
  if (hasNulls) lines.push(`const ${isNull} = M${index}[i] === 1`)
  if (!isCoded) return { emitted: { value, isNull }, lines }
  // The string is made where it is needed; NULL has the code 0, which is a text too.
  const emitted = { value: `D${index}.text(${value})`, isNull, code: { value, index } }
  return { emitted, lines }
}

/** One bit less than a double holds, so that a sum of two is exact too. */
function wordLines({ name }: Type, index: number): string[] {
  const high = `w${index}`
  const low = name === 'UInt64' ? '0' : '-0x100000'
  return [
    `const ${high} = C${index}[2 * i + 1]`,
    `if (${high} > 0xfffff || ${high} < ${low}) W()`,
    `const c${index} = ${high} * 4294967296 + (C${index}[2 * i] >>> 0)`,
  ]
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
