import assert from 'node:assert/strict'
import test from 'node:test'

import { Elytra } from '../src/client/elytra.ts'
import { JobFailed, Unsupported } from '../src/errors.ts'
import { col, count } from '../src/plan/expr.ts'

interface Sale {
  price: number
  qty: number
  country: string
  day: string
}

const ROWS = Array.from({ length: 40_000 }, (_, at) => [
  (at % 97) / 4,
  at % 11,
  at % 13 === 0 ? '' : ['NO', 'US', 'DE'][at % 3],
  `2013-01-${String(1 + (at % 28)).padStart(2, '0')}`,
])
const FILE = new File(
  ['price,qty,country,day\n', ...ROWS.map((row) => `${row.join(',')}\n`)],
  'sales.csv',
)

function sales(): ReturnType<typeof Elytra.file<Sale>> {
  return Elytra.file<Sale>(FILE)
}

test('a pipeline over a file gives what a loop over its rows gives', async () => {
  const { rows } = await sales()
    .filter((r) => r.price * r.qty > 20 && r.country !== 'US')
    .groupBy('country')
    .agg({ n: count(), total: col('price').mul(col('qty')).sum(), last: col<string>('day').max() })
    .collect()
  const wanted = new Map<string, [number, number, string]>()
  for (const [price, qty, country, day] of ROWS as [number, number, string, string][]) {
    if (!(price * qty > 20) || country === 'US' || country === '') continue
    const [n, total, last] = wanted.get(country) ?? [0, 0, '']
    wanted.set(country, [n + 1, total + price * qty, day > last ? day : last])
  }
  const expected = [...wanted.entries()]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([country, [n, total, last]]) => ({ country, n, total, last }))
  assert.deepEqual(rows, expected)
})

test('steps after an aggregate, sorts and limits', async () => {
  const best = await sales()
    .groupBy('day')
    .agg({ n: count() })
    .filter((r) => r.day >= '2013-01-10')
    .sort('n:desc', 'day')
    .limit(2)
    .collect()
  assert.deepEqual(best.rows, [
    { day: '2013-01-10', n: 1429 },
    { day: '2013-01-11', n: 1429 },
  ])
  const top = await sales().select('price', 'qty').topK(3, 'price:desc', 'qty').collect()
  assert.deepEqual(top.rows, [
    { price: 24, qty: 0 },
    { price: 24, qty: 0 },
    { price: 24, qty: 0 },
  ])
  const first = await sales().limit(2, 3).collect()
  assert.deepEqual(
    first.rows.map((row) => row.price),
    [0.75, 1],
  )
  const countries = await sales().select('country').distinct().collect()
  assert.deepEqual(
    countries.rows.map((row) => row.country),
    ['DE', 'NO', 'US', null],
  )
})

test('reduce, values and types', async () => {
  const total = await sales()
    .reduce((sum: number, r) => sum + r.price * r.qty, 0)
    .distribute()
  const wanted = (ROWS as [number, number][]).reduce((sum, [price, qty]) => sum + price * qty, 0)
  assert.equal(total.value, wanted)
  const counted = await sales().count().collect()
  assert.equal(counted.value, ROWS.length)
  const typed = await Elytra.file(FILE, { schema: { qty: 'Utf8' } })
    .select('qty')
    .limit(1)
    .collect()
  assert.deepEqual(typed.columns, [{ name: 'qty', type: 'Utf8' }])
})

test('an error names the line, and a step that is not computed here is refused', async () => {
  const bad = new File(['a,b\n', '1,2\n'.repeat(400_000), 'x,2\n'], 'bad.csv')
  await assert.rejects(Elytra.file(bad).sum('a').collect(), (error: JobFailed) => {
    assert.match(error.message, /line 400002: column "a": "x" is not a Int64/)
    return error instanceof JobFailed && error.code === 'bad-input'
  })
  const ragged = new File(['a,b\n1\n'], 'ragged.csv')
  await assert.rejects(Elytra.file(ragged).collect(), /line 2: 1 fields, expected 2/)
  await assert.rejects(sales().sample({ count: 3 }).collect(), Unsupported)
  assert.throws(() => Elytra.file(FILE, { delimiter: '"' }), /not a delimiter/)
})

test('whole numbers beyond 2^53 are exact, and an overflow is an error', async () => {
  const file = new File(['n\n9007199254740993\n', '1\n', '9223372036854775000\n'], 'large.csv')
  const made = await Elytra.file<{ n: bigint }>(file)
    .select({ more: col('n').add(1) })
    .collect()
  assert.deepEqual(
    made.rows.map((row) => row.more),
    [9007199254740994n, 2, 9223372036854775001n],
  )
  await assert.rejects(
    Elytra.file(file)
      .select({ m: col('n').mul(3) })
      .collect(),
    (error: JobFailed) => error.code === 'value-out-of-range',
  )
})

test('progress is told, and aborting ends the job', async () => {
  const large = new File(['a\n', '12345678\n'.repeat(1_200_000)], 'large.csv')
  const seen: number[] = []
  await Elytra.file(large)
    .count()
    .collect({ onProgress: ({ bytesDone }) => seen.push(bytesDone) })
  assert.ok(seen.length > 1 && seen.at(-1) === large.size)
  const stop = new AbortController()
  const running = Elytra.file(large)
    .count()
    .collect({
      signal: stop.signal,
      onProgress: () => stop.abort(),
    })
  await assert.rejects(running, { name: 'AbortError' })
})
