/** The order of values: NaN above all floats, texts by code points, NULL last. */

import type { Value } from './literals.ts'
import { compareText } from './runtime.ts'

/** Below 0 if `a` comes first. */
export function compareValues(a: Value | null, b: Value | null, nullsFirst = false): number {
  if (a === null || b === null) {
    if (a === b) return 0
    return (a === null) === nullsFirst ? -1 : 1
  }
  if (typeof a === 'string') return compareText(a, String(b))
  if (a < b) return -1
  if (a > b) return 1
  // Equal, or one of them is NaN, which is above every number and equal to itself.
  return Number(a !== a) - Number(b !== b)
}
