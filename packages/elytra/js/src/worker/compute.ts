/** One task: its plan over the input's columns, as an Arrow IPC stream. */

import { readArrow, splitStreams } from '../arrow/read.ts'
import { writeArrow, type OutputColumn } from '../arrow/write.ts'
import type { TypedColumn } from '../arrow/columnBuffers.ts'
import { ChainRun, partsOf } from '../client/chainRun.ts'
import { sliced, type Batch } from '../engine/batch.ts'
import { joined } from '../engine/joined.ts'
import { sideOf } from '../engine/joins.ts'
import { chainOf, PlanRun } from '../engine/planRun.ts'
import { parseType, sameType, typeText } from '../engine/types.ts'
import { SennitError, Unsupported } from '../errors.ts'
import type { PlanNode } from '../plan/json.ts'
import { BATCH_ROWS } from '../sandbox/messages.ts'
import type { OpenSandbox } from '../sandbox/sandbox.ts'
import { OpaqueStep } from '../sandbox/step.ts'
import type { ResultSchema } from './channel.ts'
import { hasFunctions, withFunctions } from './functions.ts'

/** Hears after each batch how many rows were computed; what it returns is awaited. */
export type OnRows = (rows: number) => Promise<void>

/**
 * Compute a task.
 *
 * @param input the whole stream; behind it those of the right sides of the plan's joins, from the lowest.
 * @param open starts the sandbox of a function of others; none in workers that run no such functions.
 * @throws Unsupported if the plan has something that is not computed in JavaScript.
 */
export async function compute(
  plan: PlanNode,
  schema: ResultSchema,
  input: Uint8Array,
  onRows: OnRows,
  open?: OpenSandbox,
): Promise<Uint8Array<ArrayBuffer>> {
  if (hasFunctions(plan)) {
    if (open) return computeFunctions(withFunctions(plan), schema, input, onRows, open)
    throw new Unsupported('this worker runs no functions of others')
  }
  const names = chainOf(plan).flatMap((step) => (step.op === 'join' ? [sideOf(step)] : []))
  const [stream = input, ...streams] = names.length > 0 ? splitStreams(input) : [input]
  const sides = new Map(names.map((name, at) => [name, wholeOf(streams[at])]))
  const { fields, batches } = readArrow(stream)
  const run = new PlanRun(plan, fields, sides)
  for (const batch of batches(!run.keepsBatches)) {
    if (run.isFull) break
    run.add(batch)
    await onRows(batch.rows)
  }
  if (isPartial(plan)) return writtenStates(run.finishStates(), schema)
  return writtenRows(run.finish(), schema)
}

async function computeFunctions(
  plan: PlanNode,
  schema: ResultSchema,
  input: Uint8Array,
  onRows: OnRows,
  open: OpenSandbox,
): Promise<Uint8Array<ArrayBuffer>> {
  const { fields, batches } = readArrow(input)
  const parts = partsOf(plan)
  const last = parts[parts.length - 1] ?? plan
  const run = await ChainRun.of(parts, fields, (node, of) => new OpaqueStep(node, of, open))
  try {
    for (const batch of batches(false)) {
      for (let from = 0; from < batch.rows && !run.isFull; from += BATCH_ROWS) {
        const piece = sliced(batch, from, BATCH_ROWS)
        await run.add(piece)
        await onRows(piece.rows)
      }
    }
    if (isPartial(last)) return writtenStates(await run.finishStates(), schema)
    return writtenRows(await run.finish(), schema)
  } finally {
    run.close()
  }
}

function writtenStates(states: OutputColumn[], schema: ResultSchema): Uint8Array<ArrayBuffer> {
  checkColumns(states, schema)
  return writeArrow(states, states[0]?.values.length ?? 0)
}

function writtenRows(batch: Batch, schema: ResultSchema): Uint8Array<ArrayBuffer> {
  const columns = columnsOf(batch)
  checkColumns(columns, schema)
  return writeArrow(columns, batch.rows)
}

/** All rows of a stream. */
function wholeOf(stream: Uint8Array | undefined): Batch {
  if (!stream) throw new SennitError('the side of a join is missing', { code: 'bad-input' })
  const { fields, batches } = readArrow(stream)
  return joined(fields, [...batches()])
}

function isPartial(plan: PlanNode): boolean {
  const steps = chainOf(plan)
  const last = steps[steps.length - 1]
  return last?.op === 'aggregate' && last.phase === 'partial'
}

function columnsOf({ fields, columns }: Batch): TypedColumn[] {
  return fields.map(({ name, type }, at) => {
    const column = columns[at]
    if (!column) throw new Error('a batch without a column')
    return { name, type: typeText(type), column }
  })
}

/** The node would refuse other columns: so this worker fails instead. */
function checkColumns(
  columns: readonly { name: string; type: string }[],
  schema: ResultSchema,
): void {
  const same =
    columns.length === schema.fields.length &&
    schema.fields.every(({ name, type }, at) => {
      const made = columns[at]
      return made?.name === name && sameText(made.type, type)
    })
  if (!same)
    throw new SennitError(
      `the columns are ${columns.map(({ name, type }) => `${name} ${type}`).join(', ')}`,
      { code: 'internal' },
    )
}

function sameText(a: string, b: string): boolean {
  if (a === b) return true
  try {
    return sameType(parseType(a), parseType(b))
  } catch {
    return false
  }
}
