/**
 * Filters, computed columns, keys and accumulators of an aggregate as one generated loop: a row's
 * values are in variables, and no column of them is made.
 */

import type { Accumulator, FusedSum } from './aggregates.ts'
import type { Batch } from './batch.ts'
import type { Emitted, Emitter, Layout } from './emit.ts'
import { generated } from './generated.ts'
import type { Groups } from './groups.ts'
import {
  inputNames,
  keyOf,
  layoutOf,
  loopInput,
  names,
  testsOf,
  type LoopInput,
  type TestedTexts,
} from './kernel.ts'
import type { RowSteps } from './rowSteps.ts'
import * as runtime from './runtime.ts'

/** An accumulator with the column of its argument; null for `count()`. */
export interface Argument {
  made: Accumulator
  column: string | null
}

interface Arrays extends LoopInput {
  /** The row at which the loop begins, and then the one at which it ended. */
  at: number
  groups: Groups
  /** Of each key with a dictionary: the numbers of its codes. */
  codes: readonly (Int32Array | null)[]
  /** How many groups the accumulators have room for. */
  room: number
  sums: readonly unknown[]
  slots: readonly Float64Array[]
}

/** It returns whether all rows were added: else there are more groups than room. */
type Loop = (arrays: Arrays) => boolean

interface Compiled {
  loop: Loop
  constants: readonly unknown[]
  tests: readonly TestedTexts[]
  /** For each key the input column whose codes it has, or -1. */
  coded: readonly number[]
}

/** Groups that all accumulators have room for from the beginning. */
const ROOM = 64

/** Adds batches to the groups and accumulators of an aggregate. */
export class FusedLoop {
  private readonly loops = new Map<string, Compiled>()
  /** Groups that the accumulators have room for; never fewer than there are when the loop begins. */
  private room = ROOM
  private readonly sums: readonly { made: FusedSum; column: string | null }[]

  /** @param steps they compute the columns of `keys` and of the arguments. */
  constructor(
    private readonly steps: RowSteps,
    private readonly keys: readonly string[],
    private readonly groups: Groups,
    private readonly arguments_: readonly Argument[],
  ) {
    this.sums = arguments_.flatMap(({ made, column }) =>
      (made.fused ?? []).map((each) => ({ made: each, column })),
    )
  }

  /**
   * Add rows of a batch.
   *
   * @returns the number of rows that were added: the first of the others has a whole number beyond
   * 2^53, and needs another kernel.
   */
  add(batch: Batch): number {
    const inputs = this.steps.inputs(batch)
    const layouts = inputs.map((column) => layoutOf(column))
    const isFused = this.arguments_.every(({ made }) => made.fused)
    if (!isFused || layouts.some(({ isBig }) => isBig)) return 0
    const key = keyOf(layouts)
    const compiled = this.loops.get(key) ?? this.generate(layouts)
    this.loops.set(key, compiled)
    const input = loopInput(inputs, layouts, batch.rows, compiled)
    this.makeRoom(this.groups.count) // others may have been added without the loop
    const arrays: Arrays = {
      ...input,
      at: 0,
      groups: this.groups,
      codes: compiled.coded.map((at, place) => {
        const dictionary = input.dictionaries[at]
        return dictionary ? this.groups.codesOf(place, dictionary) : null
      }),
      room: this.room,
      sums: this.sums.map(({ made }) => made),
      slots: this.slots(),
    }
    try {
      while (!compiled.loop(arrays)) {
        this.makeRoom(this.groups.count + 1)
        arrays.room = this.room
        arrays.slots = this.slots()
      }
    } catch (problem) {
      if (problem !== runtime.WIDEN) throw problem
      return arrays.at
    }
    return batch.rows
  }

  private makeRoom(groups: number): void {
    while (this.room < groups) this.room *= 2
  }

  private slots(): Float64Array[] {
    return this.sums.map(({ made }) => made.slots(this.room))
  }

  private generate(layouts: readonly Layout[]): Compiled {
    const emitter = this.steps.emit(layouts, false)
    // All values first: a row whose number is too large must not be added in part.
    const keys = this.keys.map((name) => emitter.column(name))
    const isBool = keys.map((_, at) => this.steps.fields[at]?.type.name === 'Bool')
    emitGroup(emitter, keys, isBool)
    this.sums.forEach(({ made, column }, at) => {
      const value = column === null ? null : emitter.column(column)
      const code = made.code(value?.value ?? '', `S${at}`, `X${at}`)
      const isNull = value?.isNull ?? 'false'
      emitter.line(isNull === 'false' ? `{ ${code} }` : `if (!(${isNull})) { ${code} }`)
    })
    const loop = compile(emitter, layouts.length, keys.length, this.sums.length)
    return {
      loop,
      constants: emitter.constants,
      tests: testsOf(emitter),
      coded: keys.map(({ code }) => code?.index ?? -1),
    }
  }
}

/** The group `g` of a row: the number of the first key, then that of each pair of numbers. */
function emitGroup(emitter: Emitter, keys: readonly Emitted[], isBool: readonly boolean[]): void {
  if (keys.length === 0) return emitter.line('const g = 0')
  keys.forEach(({ value, isNull, code }, at) => {
    const number = at === 0 ? 'g' : `g${at}`
    if (code) {
      const place = isNull === 'false' ? `${code.value} + 1` : `${isNull} ? 0 : ${code.value} + 1`
      emitter.line(`const p${at} = ${place}`)
      emitter.line(`let ${number} = G${at}[p${at}]`)
      emitter.line(`if (${number} < 0) ${number} = A.groups.numberCode(${at}, p${at})`)
    } else {
      const stored = isBool[at] ? `${value} ? 1 : 0` : value
      const found = isNull === 'false' ? stored : `${isNull} ? null : ${stored}`
      emitter.line(`let ${number} = A.groups.numberValue(${at}, ${found})`)
    }
    if (at > 0) emitter.line(`g = A.groups.numberPair(${at}, g, g${at})`)
  })
  const values = keys.map(({ value, isNull }) => `${isNull} ? null : ${value}`)
  emitter.line('if (g === count) {')
  emitter.line('if (count === room) { A.at = i; return false }')
  emitter.line(`A.groups.addGroup([${values.join()}])`)
  emitter.line('count += 1 }')
}

function compile(emitter: Emitter, inputs: number, keys: number, sums: number): Loop {
  return generated<Loop>(
    `
    const W = () => { throw R.WIDEN }
    return (A) => {
      const rows = A.rows, room = A.room
      let count = A.groups.count
      ${inputNames(emitter, inputs)}
      ${names(keys, 'G', 'codes')}
      ${names(sums, 'S', 'slots')}
      ${names(sums, 'X', 'sums')}
      let i = A.at
      try {
        for (; i < rows; i += 1) {
          ${emitter.lines.join('\n')}
        }
      } catch (problem) {
        A.at = i
        throw problem
      }
      return true
    }`,
    runtime,
  )
}
