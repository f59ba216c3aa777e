/** What the compiler infers of pipelines; `npm run typecheck` checks these lines, and they run too. */

import assert from 'node:assert/strict'
import test from 'node:test'

import { Elytra } from '../src/client/elytra.ts'
import { col, count } from '../src/plan/expr.ts'
import { opaque } from '../src/sandbox/opaque.ts'

interface Sale {
  price: number
  qty: number
  country: string
}

type RowOf<P> = P extends AsyncIterable<infer R> ? { [Name in keyof R]: R[Name] } : never
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/** Accepts a pipeline whose rows have exactly these columns and types. */
function rowsAre<R>() {
  return <P>(pipeline: P, same: Same<RowOf<P>, R>): void => {
    assert.ok(pipeline)
    assert.equal(same, true)
  }
}

const sales = Elytra.file<Sale>(new Blob(['price,qty,country\n1,2,NO\n']))

test('the columns of rows follow the verbs', () => {
  rowsAre<{ price: number }>()(sales.select('price'), true)
  rowsAre<{ country: string; total: number }>()(
    sales.select('country', { total: col('price').mul(col('qty')) }),
    true,
  )
  rowsAre<{ price: number; country: string }>()(sales.drop('qty'), true)
  rowsAre<{ country: string; n: number }>()(sales.groupBy('country').agg({ n: count() }), true)
  rowsAre<{ count: number }>()(sales.count(), true)
})

test('formulas decide the types of new columns', () => {
  rowsAre<{ price: number; qty: number; country: string; total: number; dear: boolean }>()(
    sales.withColumns({ total: (r) => r.price * r.qty, dear: (r) => r.price.gt(5) }),
    true,
  )
  rowsAre<{ price: string; qty: number; country: string }>()(
    sales.withColumn('price', (r) => r.country).select('price', 'qty', 'country'),
    true,
  )
  rowsAre<{ value: number }>()(
    sales.map((r) => r.price * r.qty),
    true,
  )
  rowsAre<{ code: string }>()(
    sales.map(opaque((r) => ({ code: r.country.slice(0, 1) }), { returns: { code: 'Utf8' } })),
    true,
  )
})

test('columns that are not there are mistakes of types', () => {
  // @ts-expect-error no such column
  sales.select('price').sort('qty')
  // @ts-expect-error no such column
  assert.ok(sales.drop('price').filter((r) => r.price > 1))
  // @ts-expect-error a text is not divided
  assert.ok(sales.withColumn('half', (r) => r.country / 2))
  // @ts-expect-error the types of what an object has
  assert.ok(opaque((r: Sale) => ({ a: r.qty, b: 1 }), { returns: { a: 'Int64' } }))
})
