/** Steps whose functions are called with rows. */

import { parseType } from '../engine/types.ts'
import { UsageError } from '../errors.ts'
import type { OpaqueNode, PlanNode } from '../plan/json.ts'
import type { Constant } from '../plan/values.ts'
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

/** Whether a function is called anywhere in it. */
export function holdsFunction(node: PlanNode): boolean {
  if (node.op === 'opaque') return true
  return inputsOf(node).some(holdsFunction)
}

function inputsOf(node: PlanNode): readonly PlanNode[] {
  if (node.op === 'scan') return []
  if (node.op === 'join') return [node.left, node.right]
  return node.op === 'union' ? node.inputs : [node.input]
}

function depth(node: PlanNode): number {
  return node.op === 'scan' ? 0 : 1 + Math.max(0, ...inputsOf(node).map(depth))
}
