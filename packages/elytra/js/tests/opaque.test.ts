import assert from 'node:assert/strict'
import test from 'node:test'

import { Elytra } from '../src/client/elytra.ts'
import { SennitError, Unsupported, UsageError } from '../src/errors.ts'
import { col, count } from '../src/plan/expr.ts'
import type { PlanNode } from '../src/plan/json.ts'
import { writeArrow } from '../src/arrow/write.ts'
import { opaque } from '../src/sandbox/opaque.ts'
import { compute } from '../src/worker/compute.ts'

interface Sale {
  id: number
  name: string | null
  price: number | null
  day: string
}

const ROWS = 17_000
const FILE = new File(
  [
    'id,name,price,day\n',
    ...Array.from(
      { length: ROWS },
      (_, at) => `${at},${at % 7 ? `näme ${at} 👍` : ''},${at % 5 ? at / 4 : ''},2013-01-02\n`,
    ),
  ],
  'sales.csv',
)
const file = Elytra.file<Sale>(FILE)
const sales = () => file
const prices = Array.from({ length: ROWS }, (_, at) => (at % 5 ? at / 4 : null))

test('map, filter and reduce call a function with rows of a file', async () => {
  const lengths = await sales()
    .filter((r) => r.id < 3)
    .map(
      opaque((r) => ({ n: r.name?.length ?? null, d: r.day }), {
        returns: { n: 'Int64', d: 'Date' },
      }),
    )
    .collect()
  assert.deepEqual(lengths.rows, [
    { n: null, d: '2013-01-02' },
    { n: 9, d: '2013-01-02' },
    { n: 9, d: '2013-01-02' },
  ])
  assert.deepEqual(
    lengths.columns.map(({ type }) => type),
    ['Int64', 'Date'],
  )
  const kept = await sales()
    .filter(opaque((r) => r.price !== null && String(r.id).endsWith('99')))
    .agg({ n: count(), total: col('price').sum() })
    .collect()
  const wanted = prices.filter((price, at) => price !== null && at % 100 === 99)
  assert.deepEqual(kept.rows, [
    {
      n: wanted.length,
      total: wanted.reduce((sum: number, price: number | null) => sum + (price ?? 0), 0),
    },
  ])
  const total = await sales()
    .map((r) => r.price)
    .filter(opaque((price, at = 2) => (price ?? 0) > at))
    .reduce(
      opaque((sum: number, price: number | null) => sum + (price ?? 0), { returns: 'Float64' }),
      0.5,
    )
    .collect()
  assert.equal(
    total.value,
    prices.reduce((sum: number, p) => sum + ((p ?? 0) > 2 ? (p ?? 0) : 0), 0.5),
  )
  const none = await sales()
    .filter((r) => r.id < 0)
    .reduce(
      opaque((n: number) => n + 1, { returns: 'Int64' }),
      7,
    )
    .collect()
  assert.equal(none.value, 7)
})

test('values arrive and return as they are: texts, whole numbers, floats, booleans', async () => {
  const file = new File(
    ['i,f,t,b\n9007199254740993,1e300,"\ud83d\udc4d,\u00e9",true\n,,"",\n'],
    'v.csv',
  )
  const same = Elytra.file(file).map(
    opaque((r) => ({ i: r.i, f: r.f, t: r.t, b: r.b }) as Record<string, unknown>, {
      returns: { i: 'Int64', f: 'Float64', t: 'Utf8', b: 'Bool' },
    }),
  )
  assert.deepEqual((await same.collect()).rows, [
    { i: 9007199254740993n, f: 1e300, t: '👍,é', b: true },
    { i: null, f: null, t: '', b: null },
  ])
  const scoped = Elytra.file(file).map(
    opaque(() => [limit, text, none, Number(big)].join() + Object.is(zero, -0), {
      returns: 'Utf8',
      scope: { limit: Infinity, text: '`${1}\u2028', none: null, big: 2n ** 60n, zero: -0 },
    }),
  )
  assert.equal((await scoped.collect()).rows[0]?.value, `Infinity,\`\${1}\u2028,,${2 ** 60}true`)
})
declare const limit: number, text: string, none: null, big: bigint, zero: number

test('an error names the step, the row and the column', async () => {
  const failing = sales()
    .filter((r) => r.id >= 10)
    .map(
      opaque((r) => ({ a: r.id === 16_500 ? ('x' as never) : r.id }), { returns: { a: 'Int64' } }),
    )
  await assert.rejects(failing.collect(), (error: SennitError) => {
    assert.equal(error.code, 'step-failed')
    assert.match(error.message, /^step 2, map, row 16490, column "a": TypeError: .* x, not a whole/)
    assert.deepEqual(error.details, { step: 'step 2, map', row: 16_490, column: 'a' })
    return true
  })
  const cases: [() => unknown, object, string | RegExp][] = [
    [() => missing, { returns: 'Int64' }, /row 0: ReferenceError: missing is not defined/],
    [async () => 1, { returns: 'Int64' }, /returned a Promise, not a whole number/],
    [() => 300, { returns: 'Int8' }, /300 is not a value of type Int8/],
    [() => 10n ** 30n, { returns: 'Int64' }, /is not a value of type Int64/],
    [() => 'x', { returns: 'Date' }, /x is not a value of type Date/],
    [() => 1, { returns: { a: 'Int64' } }, /returned 1, not an object/],
  ]
  for (const [fn, options, message] of cases)
    await assert.rejects(
      sales()
        .map(opaque(fn, options as { returns: string }))
        .collect(),
      {
        code: 'step-failed',
        message,
      },
    )
})
declare const missing: number

test('endless loops, large answers and threads that end fail the job', async () => {
  const endless = opaque(
    () => {
      for (;;);
    },
    { returns: 'Int64', secondsMax: 0.2 },
  )
  await assert.rejects(sales().map(endless).collect(), { code: 'deadline-exceeded' })
  const large = opaque(() => 'x'.repeat(1000), { returns: 'Utf8', outputBytesMax: 1e6 })
  await assert.rejects(sales().map(large).collect(), { code: 'too-large' })
  const ended = opaque(
    () => {
      process.exit()
    },
    { returns: 'Int64' } as { returns: string },
  )
  await assert.rejects(sales().map(ended).collect(), { code: 'step-failed' })
  const stop = new AbortController()
  const waiting = sales()
    .map(
      opaque(
        () => {
          for (;;);
        },
        { returns: 'Int64', secondsMax: 1 },
      ),
    )
    .collect({ signal: stop.signal, onProgress: () => stop.abort() })
  await assert.rejects(waiting, SennitError)
})

test('what cannot be called is refused before the file is read', async () => {
  const half = opaque((r: Sale) => (r.price ?? 0) / 2, { returns: 'Float64' })
  const sum = opaque((total: number, r: Sale) => total + r.id, { returns: 'Int64' })
  assert.throws(() => Elytra.remote<Sale>('sales').reduce(sum, 0), /the rows of all shards/)
  const quick = opaque((r: Sale) => r.id, { returns: 'Int64', secondsMax: 1 })
  assert.throws(() => Elytra.remote<Sale>('sales').map(quick), /those of the tab/)
  await assert.rejects(sales().map(half).plan(), Unsupported)
  assert.throws(() => sales().map(opaque((r: Sale) => r.id, {} as { returns: string })), UsageError)
  assert.throws(() => sales().map(opaque(() => 1, { returns: 'Decimal(3,2)' })), Unsupported)
  assert.throws(() => opaque(String, { returns: 'Utf8' }), /text of a built-in/)
  assert.throws(() => opaque(() => 1, { returns: 'Int64', scope: { 'a b': 1 } }), UsageError)
  assert.throws(() => opaque(() => 1, { returns: 'Int64', secondsMax: -1 }), UsageError)
  assert.deepEqual(await sales().map(half).columns(), ['value'])
})

test('a worker without frames refuses tasks with functions', async () => {
  const input = writeArrow([{ name: 'n', type: 'Int64', values: [1] }], 1)
  const fn = { text: '() => { throw 1 }', scope: {}, limits: { secondsMax: 1, outputBytesMax: 1 } }
  for (const op of ['opaque', 'custom', 'map_rows', 'map_batches'])
    await assert.rejects(
      compute(
        {
          op,
          input: { op: 'scan', source: { dataset: 'x' } },
          fn,
          code: fn.text,
        } as unknown as PlanNode,
        { fields: [] },
        input,
        () => Promise.resolve(),
      ),
      Unsupported,
    )
})
