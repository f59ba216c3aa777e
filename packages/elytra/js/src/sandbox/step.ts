/** A step of a plan whose function is called in a sandbox. */

import type { Batch } from '../engine/batch.ts'
import { reordered } from '../engine/joined.ts'
import { parseType, type Field } from '../engine/types.ts'
import { SennitError } from '../errors.ts'
import type { OpaqueNode } from '../plan/json.ts'
import { kindOf, packBatch, unpackColumns } from './columns.ts'
import type { Call, Packed, ToGuest } from './messages.ts'
import { FunctionFailed, Sandbox, type OpenSandbox } from './sandbox.ts'

const KEPT: Field = { name: 'kept', type: { name: 'Bool' } }

/** Calls the function with each batch; the sandbox starts with the first one. */
export class OpaqueStep {
  /** The columns of the result. */
  readonly fields: readonly Field[]
  private readonly returned: readonly Field[]
  private readonly call: Call
  private sandbox: Promise<Sandbox> | null = null
  private rows = 0

  constructor(
    private readonly node: OpaqueNode,
    input: readonly Field[],
    private readonly open?: OpenSandbox,
  ) {
    const { verb, shape, outputs, returnsValue, initial } = node
    this.returned =
      verb === 'filter'
        ? [KEPT]
        : outputs.map(({ name, type }) => ({ name, type: parseType(type) }))
    this.fields = verb === 'filter' ? input : this.returned
    this.call = {
      verb,
      shape,
      input: input.map(({ name }) => name),
      output: this.returned.map(({ name, type }) => ({ name, kind: kindOf(type) })),
      returnsValue: returnsValue || verb === 'filter',
      initial,
    }
  }

  /** The rows that the function makes of a batch; null for those of a reduce. */
  async add(batch: Batch): Promise<Batch | null> {
    if (batch.rows === 0) return null
    const { rows } = batch
    const columns = await this.ask({ kind: 'rows', rows, columns: packBatch(batch) })
    if (this.node.verb === 'reduce') {
      this.rows += rows
      return null
    }
    const made = this.checked(columns, rows)
    this.rows += rows
    if (this.node.verb === 'map') return { fields: this.fields, columns: made, rows }
    const kept = made[0]
    const order = Int32Array.from({ length: rows }, (_, row) => row).filter(
      (row) => kept?.values[row] === 1 && !kept.nulls?.[row],
    )
    return reordered(batch, order)
  }

  /** The result of a reduce. */
  async finish(): Promise<Batch | null> {
    if (this.node.verb !== 'reduce') return null
    const columns = this.checked(await this.ask({ kind: 'finish' }), 1)
    return { fields: this.fields, columns, rows: 1 }
  }

  close(): void {
    // A sandbox that could not be started needs no end, and its failure was reported.
    void this.sandbox?.then(
      (sandbox) => sandbox.close(),
      () => undefined,
    )
  }

  private async ask(message: ToGuest): Promise<Packed[]> {
    const { fn } = this.node
    this.sandbox ??= Sandbox.start(fn, this.call, fn.limits, this.open)
    try {
      return await (await this.sandbox).ask(message)
    } catch (error) {
      throw this.named(error)
    }
  }

  private checked(columns: readonly Packed[], rows: number): Batch['columns'] {
    try {
      return unpackColumns(columns, this.returned, rows)
    } catch (error) {
      throw this.named(error)
    }
  }

  /** The error with the step's name, and the row among those that the step received, from 0. */
  private named(error: unknown): unknown {
    if (!(error instanceof SennitError)) return error
    const { code, hint } = error
    const { label, verb } = this.node
    const failed = error instanceof FunctionFailed ? error : null
    const row = failed?.row === undefined || failed.row === null ? null : this.rows + failed.row
    const column = verb === 'filter' ? null : (failed?.column ?? null)
    const place =
      (row === null ? '' : `, row ${row}`) +
      (column === null ? '' : `, column ${JSON.stringify(column)}`)
    const details = { step: label, row, column }
    return new SennitError(`${label}${place}: ${error.message}`, { code, hint, details })
  }
}
