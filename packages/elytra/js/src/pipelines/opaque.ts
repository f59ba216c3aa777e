/** Steps whose functions are called with rows. */

import { parseType } from '../engine/types.ts'
import { UsageError } from '../errors.ts'
import type { JavascriptNode, OpaqueNode, PlanNode } from '../plan/json.ts'
import type { Constant } from '../plan/values.ts'
import { functionOf } from '../sandbox/functionText.ts'
import { LIMITS } from '../sandbox/messages.ts'
import type { Opaque } from '../sandbox/opaque.ts'

/**
 * A step that calls a function.
 *
 * @throws UsageError if the types of what it returns are missing, or not of this verb.
 */
export function opaqueNode(
  verb: OpaqueNode['verb'],
  fn: Opaque<never[], unknown>,
  shape: OpaqueNode['shape'],
  initial: Constant,
): (input: PlanNode) => OpaqueNode {
  const { returns } = fn
  const returnsValue = typeof returns === 'string'
  const outputs = returnsValue
    ? [{ name: 'value', type: returns }]
    : Object.entries(returns ?? {}).map(([name, type]) => ({ name, type: String(type) }))
  if (verb === 'filter' && outputs.length > 0)
    throw new UsageError('the function of filter returns true or false: opaque needs no types')
  if (verb === 'map' && outputs.length === 0)
    throw new UsageError(
      'map needs the types of what the function returns',
      "opaque(fn, { returns: 'Float64' }), or of columns: { returns: { total: 'Float64' } }",
    )
  if (verb === 'reduce' && !returnsValue)
    throw new UsageError('reduce needs one type', "opaque(fn, { returns: 'Float64' })")
  for (const { type } of outputs) parseType(type) // a mistake is found before the file is read
  return (input) => ({
    op: 'opaque',
    input,
    verb,
    fn,
    shape,
    outputs,
    returnsValue,
    initial,
    label: `step ${depth(input) + 1}, ${verb}`,
  })
}

/**
 * Whether a function can be part of a plan for a node.
 *
 * @throws UsageError if it is that of a reduce, or has limits of its own: those of the tab count.
 */
export function checkSent(verb: OpaqueNode['verb'], fn: Opaque<never[], unknown>): void {
  if (verb === 'reduce')
    throw new UsageError(
      'reduce calls its function with the rows of all shards in their order, and a tab has one shard',
      'use it in Elytra.file(), or fold with expressions',
    )
  const { secondsMax, outputBytesMax } = fn.limits
  if (secondsMax !== LIMITS.secondsMax || outputBytesMax !== LIMITS.outputBytesMax)
    throw new UsageError(
      'secondsMax and outputBytesMax of a function that is sent are those of the tab',
    )
}

/** The same step in a plan for a node. */
export function javascriptNode(step: OpaqueNode): JavascriptNode {
  const { input, verb, fn, shape, outputs, returnsValue, label } = step
  const fields = outputs.map(({ name, type }) => ({ name, type, nullable: true }))
  return {
    op: 'custom',
    name: 'javascript',
    inputs: [input],
    options: {
      verb: verb === 'filter' ? 'filter' : 'map',
      program: functionOf(fn),
      label,
      shape,
      returnsValue,
    },
    ...(verb === 'map' && { schema: { fields } }),
  }
}

/** Whether a function is called anywhere in it. */
export function holdsFunction(node: PlanNode): boolean {
  if (node.op === 'opaque') return true
  return inputsOf(node).some(holdsFunction)
}

function inputsOf(node: PlanNode): readonly PlanNode[] {
  if (node.op === 'scan') return []
  if (node.op === 'join') return [node.left, node.right]
  return node.op === 'union' || node.op === 'custom' ? node.inputs : [node.input]
}

function depth(node: PlanNode): number {
  return node.op === 'scan' ? 0 : 1 + Math.max(0, ...inputsOf(node).map(depth))
}
