/** Kernels: filters and computed columns of a plan, as one generated loop over a batch. */

import { room, type Batch, type Column } from './batch.ts'
import type { Dictionary } from './dictionary.ts'
import { TEST, type Emitter, type Layout, type TextTest } from './emit.ts'
import { generated } from './generated.ts'
import { RowSteps, type RowStep, type TypedStep } from './rowSteps.ts'
import * as runtime from './runtime.ts'
import type { Field } from './types.ts'

/** The arrays that a generated loop reads. */
export interface LoopInput {
  rows: number
  columns: readonly unknown[]
  nulls: readonly unknown[]
  dictionaries: readonly (Dictionary | undefined)[]
  tests: readonly Uint8Array[]
  constants: readonly unknown[]
}

/** The arrays that a loop reads and fills. */
interface Arrays extends LoopInput {
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
  private readonly loops = new Map<string, Compiled>()
  private made: Column[] = []

  /**
   * @param steps over the columns of the batches.
   * @param reuses whether a batch may be overwritten by the next one.
   */
  constructor(
    readonly steps: RowSteps,
    private readonly reuses = false,
  ) {}

  /** As the constructor, from the steps and the columns of the batches. */
  static of(
    steps: readonly (RowStep | TypedStep)[],
    input: readonly Field[],
    reuses = false,
  ): Kernel {
    return new Kernel(new RowSteps(steps, input), reuses)
  }

  get fields(): readonly Field[] {
    return this.steps.fields
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
    const inputs = this.steps.inputs(batch)
    const layouts = inputs.map((column) => layoutOf(column, isWide))
    if (!isWide && layouts.some((layout) => layout.isBig)) throw runtime.WIDEN
    const key = `${isWide}${keyOf(layouts)}`
    const compiled = this.loops.get(key) ?? this.generate(layouts, isWide)
    this.loops.set(key, compiled)
    const input = loopInput(inputs, layouts, batch.rows, compiled)
    const columns = this.outputs(compiled, input.dictionaries, batch.rows, isWide)
    const marked: boolean[] = []
    const rows = compiled.loop({
      ...input,
      marked,
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
    const emitter = this.steps.emit(layouts, isWide)
    const coded = this.fields.map(({ name, type }, at) => {
      const made = emitter.column(name)
      const value = made.code?.value ?? made.value
      const stored = type.name === 'Bool' ? `${value} ? 1 : 0` : value
      if (made.isNull === 'false') emitter.line(`O${at}[row] = ${stored}`)
      else
        emitter.line(
          `if (${made.isNull}) { N${at}[row] = 1; h${at} = true } else O${at}[row] = ${stored}`,
        )
      return made.code?.index ?? -1
    })
    const loop = compile(emitter, layouts.length, this.fields.length)
    return { loop, constants: emitter.constants, tests: testsOf(emitter), coded }
  }
}

/** What a loop reads of the columns of a batch. */
export function loopInput(
  inputs: readonly (Column | undefined)[],
  layouts: readonly Layout[],
  rows: number,
  { constants, tests }: { constants: readonly unknown[]; tests: readonly TestedTexts[] },
): LoopInput {
  const dictionaries = inputs.map((column) => column?.dictionary)
  return {
    rows,
    columns: inputs.map((column, at) => (layouts[at]?.isWords ? column?.words : column?.values)),
    nulls: inputs.map((column) => column?.nulls ?? null),
    dictionaries,
    tests: tests.map((test) => test.of(dictionaries)),
    constants,
  }
}

/** The statements that name the arrays of a `LoopInput` for the statements of a row. */
export function inputNames({ tests, constants }: Emitter, inputs: number): string {
  return [
    names(inputs, 'C', 'columns'),
    names(inputs, 'M', 'nulls'),
    names(inputs, 'D', 'dictionaries'),
    names(tests.length, 'Q', 'tests'),
    names(constants.length, 'K', 'constants'),
  ].join('\n')
}

export function names(count: number, name: string, list: string): string {
  return Array.from({ length: count }, (_, at) => `const ${name}${at} = A.${list}[${at}]`).join(
    '\n',
  )
}

export function testsOf({ tests }: Emitter): TestedTexts[] {
  return tests.map((test) => new TestedTexts(test))
}

/** Names the loop for a layout of columns. */
export function keyOf(layouts: readonly Layout[]): string {
  return layouts
    .map((each) => `${+each.hasNulls}${+each.isBig}${+each.isCoded}${+each.isWords}`)
    .join()
}

function compile(emitter: Emitter, inputs: number, outputs: number): Loop {
  return generated<Loop>(
    `
    const W = () => { throw R.WIDEN }
    return (A) => {
      const rows = A.rows
      ${inputNames(emitter, inputs)}
      ${names(outputs, 'O', 'outputs')}
      ${names(outputs, 'N', 'outputNulls')}
      ${Array.from({ length: outputs }, (_, at) => `let h${at} = false`).join('\n')}
      let row = 0
      for (let i = 0; i < rows; i += 1) {
        ${emitter.lines.join('\n')}
        row += 1
      }
      ${Array.from({ length: outputs }, (_, at) => `A.marked[${at}] = h${at}`).join('\n')}
      return row
    }`,
    runtime,
  )
}

/** The results of a condition for the texts of a dictionary. */
export class TestedTexts {
  private readonly kernel: Kernel
  private dictionary: Dictionary | null = null
  private results = new Uint8Array(64)
  private known = 0

  constructor(private readonly test: TextTest) {
    const { node, name } = test
    const column = { field: { name: 'test', type: node.type }, value: node }
    this.kernel = Kernel.of(
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

/** How a kernel reads a column: a wide one reads no words. */
export function layoutOf(column: Column | undefined, isWide = false): Layout {
  const isWords = !isWide && column?.words !== undefined
  const values = isWords ? null : column?.values
  return {
    hasNulls: Boolean(column?.nulls),
    isBig: values instanceof BigInt64Array || values instanceof BigUint64Array,
    isCoded: column?.dictionary !== undefined,
    isWords,
  }
}

function cut(column: Column, rows: number, hasNulls = false): Column {
  const { values, nulls } = column
  const kept = Array.isArray(values) ? values.slice(0, rows) : values.subarray(0, rows)
  return { ...column, values: kept, nulls: hasNulls && nulls ? nulls.subarray(0, rows) : null }
}
