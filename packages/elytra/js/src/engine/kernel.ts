/** Kernels: filters and computed columns of a plan, as one generated loop over a batch. */

import type { ExprJson, PlanNode } from '../plan/json.ts'
import { room, type Batch, type Column } from './batch.ts'
import type { Dictionary } from './dictionary.ts'
import { columnsOf, Emitter, TEST, type Emitted, type Layout, type TextTest } from './emit.ts'
import { generated } from './generated.ts'
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

/** The arrays that a generated loop reads and fills. */
interface Arrays {
  rows: number
  columns: readonly unknown[]
  nulls: readonly unknown[]
  dictionaries: readonly unknown[]
  tests: readonly Uint8Array[]
  constants: readonly unknown[]
  outputs: readonly unknown[]
  outputNulls: readonly unknown[]
  /** Whether the loop has marked a NULL in an output column. */
  marked: boolean[]
}

/** The generated function: it fills the output columns, and returns the number of their rows. */
type Loop = (arrays: Arrays) => number

interface Compiled {
  loop: Loop
  constants: readonly unknown[]
  tests: readonly TestedTexts[]
  /** For each output column the input column whose codes it passes on, or -1. */
  coded: readonly number[]
}

/** Runs row steps over batches; loops are generated for each layout of columns that occurs. */
export class Kernel {
  readonly fields: readonly Field[]
  private readonly steps: readonly TypedStep[]
  private readonly used: readonly number[]
  private readonly loops = new Map<string, Compiled>()
  private made: Column[] = []

  /**
   * @param steps from the source up.
   * @param input the columns of the batches.
   * @param reuses whether a batch may be overwritten by the next one.
   */
  constructor(
    steps: readonly (RowStep | TypedStep)[],
    private readonly input: readonly Field[],
    private readonly reuses = false,
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
    const key = `${isWide}${layouts.map((each) => `${+each.hasNulls}${+each.isBig}${+each.isCoded}`).join()}`
    const compiled = this.loops.get(key) ?? this.generate(layouts, isWide)
    this.loops.set(key, compiled)
    const inputs = this.used.map((at) => batch.columns[at])
    const dictionaries = inputs.map((column) => column?.dictionary)
    const columns = this.outputs(compiled, dictionaries, batch.rows, isWide)
    const marked: boolean[] = []
    const rows = compiled.loop({
      marked,
      rows: batch.rows,
      columns: inputs.map((column) => column?.values),
      nulls: inputs.map((column) => column?.nulls ?? null),
      dictionaries,
      tests: compiled.tests.map((test) => test.of(dictionaries)),
      constants: compiled.constants,
      outputs: columns.map(({ values }) => values),
      outputNulls: columns.map(({ nulls }) => nulls),
    })
    return {
      fields: this.fields,
      columns: columns.map((column, at) => cut(column, rows, marked[at])),
      rows,
    }
  }

  /** Room for the output columns. */
  private outputs(
    { coded }: Compiled,
    dictionaries: readonly (Dictionary | undefined)[],
    rows: number,
    isWide: boolean,
  ): Column[] {
    const made = this.fields.map(({ type }, at): Column => {
      const dictionary = dictionaries[coded[at] ?? -1]
      const before = this.made[at]
      // Arrays of bigints are rare, and are not kept.
      const isKept = before && !isWide && Boolean(before.dictionary) === Boolean(dictionary)
      if (isKept && before.values.length >= rows) {
        before.nulls?.fill(0, 0, rows)
        return { ...before, ...(dictionary && { dictionary }) }
      }
      const nulls = new Uint8Array(rows)
      return dictionary
        ? { values: new Int32Array(rows), nulls, dictionary }
        : { values: room(type, rows, isWide), nulls }
    })
    if (this.reuses && !isWide) this.made = made
    return made
  }

  private generate(layouts: readonly Layout[], isWide: boolean): Compiled {
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
    const coded = this.fields.map(({ name, type }, at) => {
      const made = emitter.columns.get(name)
      if (!made) throw new Error('a column that was not computed')
      const value = made.code?.value ?? made.value
      const stored = type.name === 'Bool' ? `${value} ? 1 : 0` : value
      if (made.isNull === 'false') emitter.line(`O${at}[row] = ${stored}`)
      else
        emitter.line(
          `if (${made.isNull}) { N${at}[row] = 1; h${at} = true } else O${at}[row] = ${stored}`,
        )
      return made.code?.index ?? -1
    })
    const loop = compile(emitter, this.used.length, this.fields.length)
    const tests = emitter.tests.map((test) => new TestedTexts(test))
    return { loop, constants: emitter.constants, tests, coded }
  }
}

function compile({ lines, tests }: Emitter, inputs: number, outputs: number): Loop {
  const each = (count: number, name: string, list: string): string =>
    Array.from({ length: count }, (_, at) => `const ${name}${at} = A.${list}[${at}]`).join(
      '\n      ',
    )
  return generated<Loop>(
    `
    const W = () => { throw R.WIDEN }
    return (A) => {
      const K = A.constants, rows = A.rows
      ${each(inputs, 'C', 'columns')}
      ${each(inputs, 'M', 'nulls')}
      ${each(inputs, 'D', 'dictionaries')}
      ${each(tests.length, 'Q', 'tests')}
      ${each(outputs, 'O', 'outputs')}
      ${each(outputs, 'N', 'outputNulls')}
      ${Array.from({ length: outputs }, (_, at) => `let h${at} = false`).join('\n      ')}
      let row = 0
      for (let i = 0; i < rows; i += 1) {
        ${lines.join('\n        ')}
        row += 1
      }
      ${Array.from({ length: outputs }, (_, at) => `A.marked[${at}] = h${at}`).join('\n      ')}
      return row
    }`,
    runtime,
  )
}

function load(
  type: Type,
  { hasNulls, isBig, isCoded }: Layout,
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
  const lines = [`const ${value} = ${read}`]
  if (hasNulls) lines.push(`const ${isNull} = M${index}[i] === 1`)
  if (!isCoded) return { emitted: { value, isNull }, lines }
  // The string is made where it is needed; NULL has the code 0, which is a text too.
  const emitted = { value: `D${index}.text(${value})`, isNull, code: { value, index } }
  return { emitted, lines }
}

/** The results of a condition for the texts of a dictionary. */
class TestedTexts {
  private readonly kernel: Kernel
  private dictionary: Dictionary | null = null
  private results = new Uint8Array(64)
  private known = 0

  constructor(private readonly test: TextTest) {
    const { node, name } = test
    const column = { field: { name: 'test', type: node.type }, value: node }
    this.kernel = new Kernel(
      [{ condition: null, columns: [column] }],
      [{ name, type: { name: 'Utf8' } }],
    )
  }

  /** The results by code + 1; those of new texts are computed. */
  of(dictionaries: readonly (Dictionary | undefined)[]): Uint8Array {
    const dictionary = dictionaries[this.test.index]
    if (!dictionary) throw new Error('a condition on codes without a dictionary')
    if (dictionary !== this.dictionary) this.known = 0
    this.dictionary = dictionary
    const size = dictionary.size + 1
    if (size > this.known) this.extend(dictionary, size)
    return this.results
  }

  private extend(dictionary: Dictionary, size: number): void {
    const from = this.known
    if (size > this.results.length) {
      const larger = new Uint8Array(2 * size)
      larger.set(this.results)
      this.results = larger
    }
    const values = Array.from({ length: size - from }, (_, at) =>
      from + at === 0 ? '' : dictionary.text(from + at - 1),
    )
    const nulls = new Uint8Array(size - from)
    if (from === 0) nulls[0] = 1
    const fields = [{ name: this.test.name, type: { name: 'Utf8' as const } }]
    const [made] = this.kernel.run({
      fields,
      columns: [{ values, nulls }],
      rows: size - from,
    }).columns
    for (let at = 0; at < size - from; at += 1)
      this.results[from + at] = made?.nulls?.[at]
        ? TEST.isNull
        : made?.values[at] === 1
          ? TEST.isTrue
          : TEST.isFalse
    this.known = size
  }
}

function layoutOf(column: Column | undefined): Layout {
  const values = column?.values
  return {
    hasNulls: Boolean(column?.nulls),
    isBig: values instanceof BigInt64Array || values instanceof BigUint64Array,
    isCoded: column?.dictionary !== undefined,
  }
}

function cut(column: Column, rows: number, hasNulls = false): Column {
  const { values, nulls } = column
  const kept = Array.isArray(values) ? values.slice(0, rows) : values.subarray(0, rows)
  return { ...column, values: kept, nulls: hasNulls && nulls ? nulls.subarray(0, rows) : null }
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
