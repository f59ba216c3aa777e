import assert from 'node:assert/strict'
import test from 'node:test'

import { readArrow } from '../src/arrow/read.ts'
import { writeArrow } from '../src/arrow/write.ts'
import { valueAt, type Batch } from '../src/engine/batch.ts'
import type { Value } from '../src/engine/literals.ts'
import { PlanRun } from '../src/engine/planRun.ts'
import { isFloat } from '../src/engine/types.ts'
import type { AggJson, ExprJson, PlanNode } from '../src/plan/json.ts'
import { randoms } from './randoms.ts'

const col = (name: string): ExprJson => ({ col: name })
const call = (fn: string, ...args: ExprJson[]): ExprJson => ({ fn, args })
const AGGREGATES: AggJson['agg'][] = ['sum', 'avg', 'min', 'max', 'first', 'last', 'var', 'count']
const SUMS: AggJson['agg'][] = ['sum', 'avg', 'count']
const SUMMED = { x: 'Float64', n: 'Int64', u: 'UInt64', t: 'Utf8', b: 'Bool' } as const

/** The aggregates of all columns by some keys, behind a filter and a computed column. */
function planOf(keys: readonly string[], chosen: readonly AggJson['agg'][]): PlanNode {
  const aggs = Object.entries(SUMMED).flatMap(([name, type]) =>
    chosen
      .filter((agg) => !/sum|avg|var/.test(agg) || !/Utf8|Bool/.test(type))
      .map((agg) => ({
        name: `${agg}${name}`,
        agg: {
          agg,
          arg: name === 'n' ? call('add', col('n'), { lit: '1', type: 'Int64' }) : col(name),
        },
      })),
  )
  const distinct = { name: 'd', agg: { agg: 'count', arg: col('n'), distinct: true } } as const
  return {
    op: 'aggregate',
    input: {
      op: 'filter',
      input: { op: 'scan', source: { dataset: 'rows' } },
      predicate: call('ne', col('t'), { lit: 't3', type: 'Utf8' }),
    },
    keys: keys.map((name) => ({ name, expr: col(name) })),
    aggs: [{ name: 'rows', agg: { agg: 'count' } }, distinct, ...aggs] as never,
  }
}

/** Rows with NULLs, NaN, both zeros, and now and then a whole number beyond 2^53. */
function stream(seed: number, rows: number): Uint8Array {
  const random = randoms(seed)
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)] as T
  const column = (make: () => Value | null): (Value | null)[] =>
    Array.from({ length: rows }, () => (random() < 0.1 ? null : make()))
  const big = (): number | bigint =>
    random() < 0.0005 ? 2n ** 60n - 1n : Math.floor(random() * 1000)
  return writeArrow(
    [
      {
        name: 'x',
        type: 'Float64',
        values: column(() => pick([NaN, -0, 0, random() * 1e9, -1e-300, random()])),
      },
      { name: 'n', type: 'Int64', values: column(() => (random() < 0.5 ? -1 : 1) * Number(big())) },
      { name: 'u', type: 'UInt64', values: column(big) },
      { name: 't', type: 'Utf8', values: column(() => `t${Math.floor(random() * 150)}`) },
      { name: 'b', type: 'Bool', values: column(() => random() < 0.5) },
    ],
    rows,
  )
}

/** The rows of a result, without its typed arrays. */
function rowsOf({ fields, columns, rows }: Batch): (Value | null)[][] {
  return Array.from({ length: rows }, (_, row) =>
    fields.map(({ type }, at) => {
      const column = columns[at]
      const value = column ? valueAt(column, type, row) : null
      // A whole number is a bigint in one run and a double in the other.
      return isFloat(type) || value === null ? value : String(value)
    }),
  )
}

/** A batch with its whole numbers as bigints, which is computed without the loop. */
function widened(batch: Batch): Batch {
  const columns = batch.columns.map((column, at) => {
    const name = batch.fields[at]?.type.name ?? ''
    if (!name.endsWith('Int64')) return column
    const Wide = name === 'Int64' ? BigInt64Array : BigUint64Array
    return { values: Wide.from(Array.from(column.values as never, BigInt)), nulls: column.nulls }
  })
  return { ...batch, columns }
}

test('one loop gives the bits of columns that accumulators add, for all keys and cuts', () => {
  for (const [seed, keys] of [[], ['t'], ['b'], ['t', 'b'], ['n'], ['x', 't']].entries()) {
    const narrow = Array.from({ length: 6 }, (_, at) => {
      const [batch] = readArrow(stream(100 * seed + at + 1, 200)).batches()
      return batch as Batch
    })
    const wide = narrow.map(widened)
    // The first one widens: the loop begins with more groups than it has had room for.
    const mixed = narrow.map((batch, at) => (at === 0 ? widened(batch) : batch))
    // Without a choice of a value the loop goes on behind a batch of bigints.
    for (const chosen of [AGGREGATES, SUMS]) {
      const [wanted, ...found] = [wide, narrow, mixed].map((batches) => {
        const run = new PlanRun(planOf(keys, chosen), narrow[0]?.fields ?? [])
        for (const batch of batches) run.add(batch)
        return rowsOf(run.finish())
      })
      assert.ok(wanted && wanted.length > (keys.length === 0 ? 0 : 2))
      for (const rows of found) assert.deepEqual(rows, wanted, keys.join())
    }
  }
})

test('short texts with equal bytes in front are different, in any order', () => {
  const texts = [
    'a',
    'ab',
    'abc',
    'abcd',
    '\0',
    '\0\0',
    '\0a',
    '',
    'é',
    '日',
    'ab',
    'a',
    '\0',
    '\0a',
  ]
  const { fields, batches } = readArrow(
    writeArrow([{ name: 't', type: 'Utf8', values: texts }], texts.length),
  )
  const [batch] = [...batches()] as [Batch]
  const found = texts.map((_, row) =>
    valueAt(batch.columns[0] as never, fields[0]?.type as never, row),
  )
  assert.deepEqual(found, texts)
})
