/** The names of a plan's columns, and verbs that need them. */

import { UsageError } from '../errors.ts'
import type { PlanNode, SourceJson } from './json.ts'

/** Returns the names of a source's columns. */
export type ColumnsOf = (source: SourceJson) => Promise<readonly string[]>

/** The suffix of a right side's column whose name the left side has too. */
export const SUFFIX = '_right'

/**
 * The names of a plan's columns, in order.
 *
 * @throws UsageError if a step names a column that its input does not have.
 */
export async function columnNames(node: PlanNode, of: ColumnsOf): Promise<string[]> {
  switch (node.op) {
    case 'scan':
      return [...(node.columns ?? (await of(node.source)))]
    case 'project':
      return node.columns.map(({ name }) => name)
    case 'aggregate':
      return [...node.keys, ...node.aggs].map(({ name }) => name)
    case 'opaque':
      if (node.verb === 'filter') break
      return node.outputs.map(({ name }) => name)
    case 'custom': {
      const [input] = node.inputs
      if (node.schema || !input) return (node.schema?.fields ?? []).map(({ name }) => name)
      return columnNames(input, of)
    }
    case 'join':
      return joined(node, await columnNames(node.left, of), await columnNames(node.right, of))
    case 'union':
      return united(node, of)
  }
  const names = await columnNames(node.input, of)
  switch (node.op) {
    case 'rename': {
      const renamed = new Map(node.names.map(({ from, to }) => [from, to]))
      return names.map((name) => renamed.get(name) ?? name)
    }
    case 'with_column':
      return extended(
        names,
        node.columns.map(({ name }) => name),
      )
    case 'window':
      return extended(
        names,
        node.functions.map(({ name }) => name),
      )
    case 'explode': {
      const made = names.map((name) => (name === node.column ? (node.as ?? name) : name))
      return node.position === undefined ? made : [...made, node.position]
    }
    default:
      return names
  }
}

/** The column that a sum without a name is of: the only one. */
export function onlyColumn(names: readonly string[], verb: string): string {
  const [name] = names
  if (name !== undefined && names.length === 1) return name
  throw new UsageError(
    `${verb} needs the name of one of the ${names.length} columns`,
    `${verb}(${JSON.stringify(name ?? 'name')}), or map to one value first`,
  )
}

/** The names without these, which must be there. */
export function without(names: readonly string[], dropped: readonly string[]): string[] {
  for (const name of dropped)
    if (!names.includes(name))
      throw new UsageError(
        `there is no column ${name}`,
        `there are ${names.slice(0, 20).join(', ')}`,
      )
  const left = names.filter((name) => !dropped.includes(name))
  if (left.length === 0) throw new UsageError('drop would leave no column')
  return left
}

function extended(names: readonly string[], added: readonly string[]): string[] {
  return [...names, ...added.filter((name) => !names.includes(name))]
}

function joined(
  node: PlanNode & { op: 'join' },
  left: readonly string[],
  right: readonly string[],
): string[] {
  if (node.how === 'semi' || node.how === 'anti') return [...left]
  const shared = new Set((node.on ?? []).filter((on) => on.left === on.right).map((on) => on.right))
  const suffix = node.suffix ?? SUFFIX
  const added = right.filter((name) => !shared.has(name))
  return [...left, ...added.map((name) => (left.includes(name) ? name + suffix : name))]
}

async function united(node: PlanNode & { op: 'union' }, of: ColumnsOf): Promise<string[]> {
  const all = await Promise.all(node.inputs.map((input) => columnNames(input, of)))
  const [first = []] = all
  return node.byName ? [...new Set(all.flat())] : first
}
