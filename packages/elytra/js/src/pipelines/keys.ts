/** Sort keys and join keys in the forms that verbs take. */

import { UsageError } from '../errors.ts'
import { Expr, SortKey } from '../plan/expr.ts'
import type { SortKeyJson } from '../plan/json.ts'

/** The plan's form of sort keys: at least one. */
export function sortKeys(keys: readonly (string | SortKey | Expr)[], verb: string): SortKeyJson[] {
  if (keys.length === 0) throw new UsageError(`${verb} needs at least one key`)
  return keys.map((key) => sortKey(key).json)
}

function sortKey(key: string | SortKey | Expr): SortKey {
  if (key instanceof SortKey) return key
  if (key instanceof Expr) return key.asc()
  const [name = '', ...flags] = key.split(':')
  const unknown = flags.find((flag) => !['asc', 'desc', 'nulls_first', 'nulls_last'].includes(flag))
  if (name === '' || unknown !== undefined)
    throw new UsageError(
      `${JSON.stringify(key)} is not a sort key`,
      'such as "age", "age:desc" or "age:desc:nulls_first"',
    )
  return new SortKey({ col: name }, flags.includes('desc'), flags.includes('nulls_first'))
}

/** Keys of a join: a name that both sides have, several, pairs, or an object of left and right. */
export type On = string | readonly (string | readonly [string, string])[] | Record<string, string>

/** The keys of a join as the plan has them. */
export function joinPairs(on: On): { left: string; right: string }[] {
  if (typeof on === 'string') return [{ left: on, right: on }]
  const pairs = Array.isArray(on)
    ? (on as readonly (string | readonly [string, string])[]).map(
        (key) => (typeof key === 'string' ? [key, key] : key) as readonly [string, string],
      )
    : Object.entries(on as Record<string, string>)
  return pairs.map(([left, right]) => ({ left, right }))
}
