/** A pipeline over one source: plans, with functions that are called with rows between them. */

import type { OutputColumn } from '../arrow/write.ts'
import type { Batch } from '../engine/batch.ts'
import { PlanRun } from '../engine/planRun.ts'
import type { Field } from '../engine/types.ts'
import type { OpaqueNode, PlanNode } from '../plan/json.ts'
import type { OpaqueStep } from '../sandbox/step.ts'

type Part = PlanRun | OpaqueStep

/** Makes a step of a function over rows with these columns. */
export type StepOf = (
  node: OpaqueNode,
  fields: readonly Field[],
) => OpaqueStep | Promise<OpaqueStep>

/** Runs the parts of a pipeline one after the other, batch by batch. */
export class ChainRun {
  private constructor(private readonly parts: readonly Part[]) {}

  /**
   * @param nodes of `partsOf`.
   * @param input the columns of the batches.
   */
  static async of(
    nodes: readonly PlanNode[],
    input: readonly Field[],
    stepOf: StepOf,
  ): Promise<ChainRun> {
    const parts: Part[] = []
    let fields = input
    for (const node of nodes) {
      const part = node.op === 'opaque' ? await stepOf(node, fields) : new PlanRun(node, fields)
      parts.push(part)
      fields = part.fields
    }
    return new ChainRun(parts)
  }

  /** Whether further batches change nothing. */
  get isFull(): boolean {
    return this.parts.some((part) => part instanceof PlanRun && part.isFull)
  }

  /** Whether batches are needed after `add`, so that their arrays must not be filled again. */
  get keepsBatches(): boolean {
    const [first] = this.parts
    return first instanceof PlanRun && first.keepsBatches
  }

  async add(batch: Batch): Promise<void> {
    await this.pass(batch, 0)
  }

  /** The result, once all batches were added. */
  async finish(): Promise<Batch> {
    return (await this.flushed()).finish()
  }

  /** The states of a pipeline that ends with a partial aggregate, once all batches were added. */
  async finishStates(): Promise<OutputColumn[]> {
    return (await this.flushed()).finishStates()
  }

  /** The last part, when it has all rows of those before it. */
  private async flushed(): Promise<PlanRun> {
    const last = this.parts[this.parts.length - 1]
    if (!(last instanceof PlanRun)) throw new Error('a pipeline that does not end with a plan')
    for (const [at, part] of this.parts.slice(0, -1).entries()) {
      const rest = await part.finish()
      if (rest) await this.pass(rest, at + 1)
    }
    return last
  }

  /** End the threads of its functions. */
  close(): void {
    for (const part of this.parts) if (!(part instanceof PlanRun)) part.close()
  }

  private async pass(batch: Batch, at: number): Promise<void> {
    const part = this.parts[at]
    if (!(part instanceof PlanRun)) {
      const made = await part?.add(batch)
      if (made) await this.pass(made, at + 1)
      return
    }
    part.add(batch)
    if (at === this.parts.length - 1) return // the last one holds the result
    for (const ready of part.drain()) await this.pass(ready, at + 1)
  }
}

const SOURCE: PlanNode = { op: 'scan', source: { dataset: '' } }

/** A chain of steps as plans and the functions between them; it begins and ends with a plan. */
export function partsOf(node: PlanNode): PlanNode[] {
  if (node.op === 'opaque') return [...partsOf(node.input), node, SOURCE]
  if (!('input' in node)) return [node]
  const parts = partsOf(node.input)
  const before = parts.pop() ?? SOURCE
  return [...parts, { ...node, input: before }]
}
