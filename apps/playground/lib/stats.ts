/** Column statistics merged from the shards, without a query. */

import type { ShardInfo } from './records'

/** Nulls, smallest and largest value; null if a shard has no statistics. */
export interface ColumnStats {
  nulls: number | null
  min: string | number | boolean | null
  max: string | number | boolean | null
}

type Value = string | number | boolean

/** Merge the statistics of all shards, by column name. */
export function mergeStats(
  shards: readonly Pick<ShardInfo, 'stats' | 'rows'>[],
  types: ReadonlyMap<string, string>,
): Map<string, ColumnStats> {
  const merged = new Map<string, ColumnStats>()
  for (const [name, type] of types) {
    const parts = shards.filter(({ rows }) => rows > 0).map(({ stats }) => part(stats?.[name]))
    merged.set(name, {
      nulls: parts.some((each) => each.nulls === null)
        ? null
        : parts.reduce((sum, each) => sum + (each.nulls ?? 0), 0),
      min: extreme(parts, type, 'min'),
      max: extreme(parts, type, 'max'),
    })
  }
  return merged
}

/** Skip shards with only nulls; a shard without statistics makes the result unknown. */
function extreme(parts: ReturnType<typeof part>[], type: string, end: 'min' | 'max'): Value | null {
  const known = parts.filter((each) => each[end] !== null)
  if (known.length === 0 || parts.some((each) => each[end] === null && !each.allNull)) return null
  const values = known.map((each) => each[end] as Value)
  return values.reduce((best, value) =>
    compareValues(value, best, type) < 0 === (end === 'min') ? value : best,
  )
}

/** Order two values as their type does: numbers that came as text are numbers, other text is text. */
function compareValues(a: Value, b: Value, type: string): number {
  if (/^(U?Int|Decimal|Float)/.test(type)) {
    const difference = Number(a) - Number(b)
    if (difference !== 0 || a === b) return difference
    return bigOf(a) < bigOf(b) ? -1 : bigOf(a) > bigOf(b) ? 1 : 0
  }
  return a === b ? 0 : a < b ? -1 : 1
}

/** The integer part of a number too long for a float. */
function bigOf(value: Value): bigint {
  const digits = /^-?\d+/.exec(String(value))
  return digits ? BigInt(digits[0]) : 0n
}

function part(stats: unknown): {
  nulls: number | null
  min: Value | null
  max: Value | null
  allNull: boolean
} {
  const { nulls, min, max } = (typeof stats === 'object' && stats !== null ? stats : {}) as Record<
    string,
    unknown
  >
  const low = plain(min)
  const high = plain(max)
  const count = typeof nulls === 'number' ? nulls : null
  return {
    nulls: count,
    min: low,
    max: high,
    allNull: count !== null && count > 0 && low === null && high === null,
  }
}

function plain(value: unknown): Value | null {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
    ? value
    : null
}
