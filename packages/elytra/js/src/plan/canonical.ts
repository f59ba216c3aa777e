/** The canonical text of a plan (RFC 8785) and its hash, the same as the node's. */

import { UsageError } from '../errors.ts'
import { sha256Hex } from '../uploads/sha256.ts'
import type { PlanJson, PlanNode } from './json.ts'

/** JSON with sorted members, as RFC 8785 says; plans have no fractions and no numbers above 2^53. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  if (typeof value === 'object' && value !== null) {
    // By UTF-16 units, which is how JavaScript compares strings.
    const members = Object.entries(value)
      .filter(([, each]) => each !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    return `{${members.map(([k, each]) => `${JSON.stringify(k)}:${canonicalJson(each)}`).join(',')}}`
  }
  if (typeof value === 'number' && !Number.isSafeInteger(value))
    throw new UsageError(`${value} cannot be a number of a plan`)
  return JSON.stringify(value)
}

/** The whole plan whose outermost operator is `node`. */
export function planOf(node: PlanNode): PlanJson {
  return { v: 1, ...node }
}

/** The lower-case hex SHA-256 of the plan's canonical text. */
export function planHash(plan: PlanJson): Promise<string> {
  return sha256Hex(new TextEncoder().encode(canonicalJson(plan)))
}
