import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'

import type { Runner } from '../src/client/job.ts'
import { Pipeline } from '../src/pipelines/pipeline.ts'
import type { AnyRow } from '../src/pipelines/types.ts'
import { lag, rowNumber } from '../src/pipelines/window.ts'
import { canonicalJson } from '../src/plan/canonical.ts'
import { opaque } from '../src/sandbox/opaque.ts'
import { coalesce, col, concat, count, lit, when } from '../src/plan/expr.ts'
import type { SourceJson } from '../src/plan/json.ts'

const GOLDEN = JSON.parse(readFileSync('../../../spec/plans.json', 'utf8')) as Record<
  string,
  { plan: string; hash: string }
>

/** A node that knows the columns of `sales`. */
const node: Runner = {
  sendsFunctions: true,
  columns: () => Promise.resolve(['price', 'qty', 'country', 'tags', 'at']),
  submit: () => Promise.reject(new Error('no job is submitted here')),
}

interface Sale {
  price: number
  qty: number
  country: string
  tags: string[]
  at: Date
}

function sales<R extends object = Sale>(more: Partial<SourceJson> = {}): Pipeline<R> {
  return Pipeline.over<R>(node, { dataset: 'sales', ...more })
}

const price = col<number>('price')
const qty = col<number>('qty')
const country = col<string>('country')

/** The pipelines of `packages/elytra/tests/test_golden_plans.py`; more than one form of some. */
const PIPELINES: Record<string, (() => Pick<Pipeline, 'plan' | 'hash'>)[]> = {
  scan: [() => sales()],
  'scan of a version': [() => sales({ version: 3 })],
  'scan of a tag': [() => sales({ version: 'löschen' })],
  'scan of a time': [() => sales({ timestamp: '2026-01-31T05:00:00.250000' })],
  filter: [
    () => sales().filter(price.mul(qty).gt(500)),
    () => sales().filter((r) => r.price * r.qty > 500),
    () => sales().filter((r) => r.price.mul(r.qty).gt(500)),
    () => sales().filter(({ price, qty }) => price * qty > 500),
    () => sales().where((r) => r['price'] * r.qty > least, { least: 500 }),
  ],
  filters: [
    () => sales().filter(price.gt(0.1)).filter(country.ne('US')),
    () =>
      sales()
        .filter((r) => r.price > 0.1)
        .filter((r) => r.country !== 'US'),
  ],
  logic: [
    () => sales().filter(price.gt(1).and(qty.lt(5)).and(country.isNull().not()).or(qty.eq(7))),
    () => sales().filter((r) => (r.price > 1 && r.qty < 5 && r.country !== null) || r.qty === 7),
  ],
  tests: [
    () => sales().filter(country.isIn(['a', 'b']).and(qty.between(1, 5)).and(country.isNotNull())),
    () =>
      sales().filter(
        (r) => ['a', 'b'].includes(r.country) && r.qty.between(1, 5) && r.country !== null,
      ),
  ],
  texts: [
    () =>
      sales().select('country', {
        low: country.lower(),
        size: country.length(),
        hello: concat('hi ', country, '"\\\n\u20ac\u{1f44d}'),
      }),
    () =>
      sales().select('country', {
        low: (r) => r.country.toLowerCase(),
        size: (r) => r.country.length,
        hello: (r) => 'hi ' + r.country + '"\\\n\u20ac\u{1f44d}',
      }),
  ],
  constants: [
    () =>
      sales().select({
        a: lit(1),
        b: lit(-2.5),
        c: lit(2n ** 63n),
        d: lit(-(2n ** 70n)),
        e: lit(true),
        f: lit(null),
        g: lit(5, 'Float64'),
        h: lit('1.50', 'Decimal(4,2)'),
        i: lit(new Uint8Array([0, 255])),
        j: lit('2013-01-31', 'Date'),
        k: lit(new Date('2013-01-31T05:00:00Z')),
        m: lit(1e300, 'Float64'),
        n: lit(5e-324),
        o: lit(Infinity),
        p: lit(0, 'Float64'),
        q: lit(-7, 'Int8'),
      }),
  ],
  case: [
    () =>
      sales().select({
        size: when(qty.gt(10)).then('big').when(qty.gt(1)).then('some').otherwise('one'),
        none: when(qty.gt(10)).then(1),
      }),
  ],
  casts: [() => sales().select({ a: qty.cast('Utf8'), b: country.tryCast('Int32') })],
  columns: [
    () =>
      sales()
        .withColumns({ total: price.mul(qty), qty: (r) => r.qty + 1 })
        .rename({ total: 'sum' })
        .cast({ qty: 'Float64' }),
  ],
  drop: [() => sales().drop('tags', 'at')],
  'drop after others': [
    () =>
      sales()
        .rename({ qty: 'n' })
        .withColumn('m', (r) => r.n % 7)
        .drop('n', 'at'),
  ],
  group: [
    () =>
      sales()
        .groupBy('country', { cheap: (r) => r.price < 5 })
        .agg({
          n: count(),
          total: price.mul(qty).sum(),
          mean: price.avg(),
          different: qty.countDistinct(),
          middle: price.median(),
        }),
  ],
  count: [() => sales().count()],
  sum: [() => sales().sum('price')],
  'mean of the only column': [() => sales().select('price').mean()],
  sort: [() => sales().sort('country', 'price:desc', 'qty:desc:nulls_first')],
  top: [() => sales().topK(10, price.mul(qty).desc())],
  limits: [() => sales().limit(10, 5).head().take(3)],
  distinct: [() => sales().distinct('country')],
  samples: [() => sales().sample({ fraction: 0.1, seed: 7 }).sample({ count: 5 })],
  explode: [() => sales().explode('tags', { as: 'tag', outer: true, position: 'at_item' })],
  expect: [() => sales().expect({ unique: ['country'], notNull: ['price'], rows: '>0' })],
  join: [() => sales().join(sales({ dataset: 'people' }), { country: 'land' }, 'left')],
  'join of itself': [
    () =>
      sales<AnyRow>()
        .join(sales<AnyRow>().select('country', 'price'), 'country')
        .drop('price_right'),
  ],
  union: [() => sales<AnyRow>().unionByName(sales<AnyRow>({ dataset: 'more' }))],
  window: [
    () =>
      sales().window(
        { n: rowNumber(), before: lag(price, 2), running: qty.sum().over(threeRows) },
        { partitionBy: 'country', orderBy: 'at' },
      ),
  ],
  'called functions': [
    () =>
      sales()
        .filter(opaque((r: Sale) => known.includes(r.country), { scope: { known: ['é', 'b'] } }))
        .map(opaque((r: Sale) => r.price * r.qty, { returns: 'Float64' }))
        .count(),
  ],
  'map to a value': [
    () => sales().map((r) => r.price * r.qty),
    () => sales().map(price.mul(qty)),
    () => sales().map((r) => ({ value: r.price * r.qty })),
  ],
  'reduce of rows': [() => sales().reduce((total: number, r: Sale) => total + r.price * r.qty, 0)],
  'reduce to a count': [() => sales().reduce((n: number) => n + 1, 0)],
  'reduce of a column': [
    () =>
      sales()
        .map((r) => r.price)
        .reduce((a: number, b: number) => a + b),
  ],
  'reduce to a maximum': [
    () =>
      sales()
        .map(price)
        .reduce((a: number, b: number) => Math.max(a, b)),
    () =>
      sales()
        .map(price)
        .reduce((a: number, b: number) => (b > a ? b : a)),
  ],
  coalesce: [
    () => sales().select({ x: coalesce(price, 0) }),
    () => sales().select({ x: (r) => r.price ?? 0 }),
  ],
}

const threeRows = { unit: 'rows', start: -2, end: 0 } as const
declare const least: number
declare const known: string[]

for (const [name, builders] of Object.entries(PIPELINES))
  test(`the plan of the specification: ${name}`, async () => {
    const golden = GOLDEN[name]
    assert.ok(golden, 'the specification has it')
    for (const build of builders) {
      const pipeline = build()
      assert.equal(canonicalJson(await pipeline.plan()), golden.plan)
      assert.equal(await pipeline.hash(), golden.hash)
    }
  })

test('every plan of the specification is built here', () => {
  assert.deepEqual(Object.keys(PIPELINES).sort(), Object.keys(GOLDEN).sort())
})
