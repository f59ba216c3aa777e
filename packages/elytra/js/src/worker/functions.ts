/** Functions of others in the plan of a task: read as text, and called in frames of the page alone. */

import { Unsupported } from '../errors.ts'
import type { JavascriptNode, OpaqueNode, PlanNode } from '../plan/json.ts'
import { LIMITS_OF_OTHERS } from '../sandbox/messages.ts'

/** As the node's own limits: another node might have none. */
const PROGRAM_MAX = 64 << 10
const FUNCTIONS_MAX = 4

/** Whether a task has functions. Only plans without other operators of packages get to a worker. */
export function hasFunctions(node: PlanNode): boolean {
  if (node.op === 'custom') return true
  if (node.op === 'join') return hasFunctions(node.left) || hasFunctions(node.right)
  if (node.op === 'union') return node.inputs.some(hasFunctions)
  return node.op !== 'scan' && hasFunctions(node.input)
}

/**
 * The plan with its functions as steps that are called.
 *
 * @throws Unsupported if one of them has another form than `JavascriptNode`.
 */
export function withFunctions(plan: PlanNode): PlanNode {
  let count = 0
  const read = (node: PlanNode): PlanNode => {
    if (node.op === 'custom') {
      count += 1
      return opaqueOf(node, read)
    }
    if (node.op === 'join') throw new Unsupported('functions and a join in one task')
    return 'input' in node ? ({ ...node, input: read(node.input) } as PlanNode) : node
  }
  const found = read(plan)
  if (count > FUNCTIONS_MAX)
    throw new Unsupported(`a task has more than ${FUNCTIONS_MAX} functions`)
  return found
}

function opaqueOf(node: JavascriptNode, read: (node: PlanNode) => PlanNode): OpaqueNode {
  const { name, inputs, options, schema } = node
  const [input] = inputs
  const { verb, program, label, shape, returnsValue } = options
  const isKnown =
    name === 'javascript' &&
    (verb === 'map' || verb === 'filter') &&
    ['row', 'tuple', 'value'].includes(shape) &&
    typeof program === 'string' &&
    program.length <= PROGRAM_MAX
  if (!isKnown || !input || inputs.length !== 1)
    throw new Unsupported(
      `the operator ${String(name).slice(0, 100)} is not computed in JavaScript`,
    )
  const outputs = verb === 'map' ? (schema?.fields ?? []) : []
  return {
    op: 'opaque',
    input: read(input),
    verb,
    fn: { text: program, scope: {}, limits: LIMITS_OF_OTHERS },
    shape,
    outputs,
    returnsValue: returnsValue === true,
    initial: null,
    label: String(label).slice(0, 200),
  }
}
