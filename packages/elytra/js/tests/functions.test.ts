import assert from 'node:assert/strict'
import test from 'node:test'

import type { Runner } from '../src/client/job.ts'
import { Unsupported, UsageError } from '../src/errors.ts'
import { Pipeline } from '../src/pipelines/pipeline.ts'
import { col } from '../src/plan/expr.ts'
import type { ExprJson, PlanNode } from '../src/plan/json.ts'
import { hexFloat, spellLiteral } from '../src/plan/values.ts'

const node: Runner = {
  columns: () => Promise.resolve(['a', 'b', 'name']),
  submit: () => Promise.reject(new Error('no job is submitted here')),
}

interface Row {
  a: number
  b: number
  name: string
}

const rows = Pipeline.over<Row>(node, { dataset: 'rows' })

async function predicate(build: () => Pipeline<Row, never> | Pipeline<Row>): Promise<ExprJson> {
  const plan = (await (build() as Pipeline<Row>).plan()) as PlanNode & { predicate: ExprJson }
  return plan.predicate
}

async function value(fn: (r: Row) => unknown): Promise<ExprJson> {
  const plan = (await rows.map(fn as never).plan()) as unknown as {
    columns: [{ expr: ExprJson }]
  }
  return plan.columns[0].expr
}

const [a, b, name] = [col('a'), col('b'), col('name')]

test('operators have their order and their grouping', async () => {
  const forms: [(r: Row) => unknown, ExprJson][] = [
    [(r) => r.a + r.b * 2, a.add(b.mul(2)).json],
    [(r) => (r.a + r.b) * 2, a.add(b).mul(2).json],
    [(r) => r.a - r.b - 1, a.sub(b).sub(1).json],
    [(r) => -r.a % 7, a.neg().mod(7).json],
    [
      (r) => r.a ** (r.b ** 2),
      { fn: 'power', args: [a.json, { fn: 'power', args: [b.json, { lit: '2', type: 'Int64' }] }] },
    ],
    [(r) => !(r.a >= 1 || r.b <= 60 * 60), a.ge(1).or(b.le(3600)).not().json],
    [(r) => Math.abs(r.a) / Math.PI, a.abs().div(Math.PI).json],
    [
      (r) => (r.a > 1 ? 'x' : null),
      { case: [{ when: a.gt(1).json, then: { lit: 'x', type: 'Utf8' } }], else: { lit: null } },
    ],
    [
      (r) => `${r.name}!`,
      { fn: 'concat', args: [name.cast('Utf8').json, { lit: '!', type: 'Utf8' }] },
    ],
    [(r) => r.name.toUpperCase().startsWith('A'), name.upper().startsWith('A').json],
  ]
  for (const [fn, expected] of forms) assert.deepEqual(await value(fn), expected, String(fn))
})

test('a function of statements may bind constants and return', async () => {
  const plan = await value(function (r) {
    const total = r.a + r.b // a comment
    return total * 2
  })
  assert.deepEqual(plan, a.add(b).mul(2).json)
})

test('=== null asks whether there is a value', async () => {
  assert.deepEqual(await value((r) => r.a === null), a.isNull().json)
  assert.deepEqual(await value((r) => undefined !== r.a), a.isNotNull().json)
})

test('a variable is passed as scope, or used with methods', async () => {
  const limit = 5
  const expected = a.gt(5).json
  assert.deepEqual(await predicate(() => rows.filter((r) => r.a > limit, { limit })), expected)
  assert.deepEqual(await predicate(() => rows.filter((r) => r.a.gt(limit))), expected)
  assert.throws(
    () => rows.filter((r) => r.a > limit),
    (error: Unsupported) => {
      assert.match(error.message, /limit is a variable outside of the function/)
      return error instanceof Unsupported && /\{ limit \}/.test(error.hint ?? '')
    },
  )
})

test('functions of later steps receive what map returned', async () => {
  const one = rows.map((r) => r.a * 2).filter((x) => x > 4)
  assert.deepEqual(await predicate(() => one as never), col('value').gt(4).json)
  const named = rows.map((r) => r.a).filter((x) => x > 4)
  assert.deepEqual(await predicate(() => named as never), a.gt(4).json)
  const two = rows.map((r) => [r.a, r.b] as const).filter((pair) => pair[0] < pair[1])
  assert.deepEqual(await predicate(() => two as never), col('_0').lt(col('_1')).json)
})

test('what cannot be translated is refused, and says why', () => {
  const outside = (x: number): number => x
  const refused: [(r: Row) => unknown, RegExp][] = [
    [(r) => Math.round(r.a), /rounds -2.5 up/],
    [(r) => r.name.charAt(0), /no \.charAt\(\)/],
    [(r) => typeof r.a, /typeof/],
    [(r) => outside(r.a) + 1, /outside is a variable/],
    [(r) => r, /a whole row/],
    [(r) => /x/.test(r.name), /cannot be translated/],
    [
      (r) => {
        if (r.a > 1) return 1
        return 2
      },
      /"if/,
    ],
    [(r) => (r as never as { a: typeof a }).a.gt(Math.random()), /Math.random|at each call/],
    [async (r) => r.a, /async/],
    [(r) => new Date(r.a), /`new`/],
  ]
  for (const [fn, message] of refused)
    assert.throws(() => rows.map(fn as never), { name: 'Unsupported', message }, String(fn))
})

test('folds that no aggregate computes are refused', () => {
  const folds: ((total: number, r: Row) => number)[] = [
    (total, r) => total * r.a,
    (total, r) => (total > r.a ? r.b : total),
    (total) => total,
    (total, r) => Math.max(total + 1, r.a),
  ]
  for (const fold of folds)
    assert.throws(() => rows.reduce(fold as never, 0), { name: 'Unsupported' }, String(fold))
  assert.throws(() => rows.reduce((total: number, r) => total + r.a), /needs an initial value/)
})

test('a whole number beyond 2^53 is refused: it may be another one', () => {
  assert.throws(() => col('a').eq(2 ** 53), { name: 'UsageError', message: /not an exact integer/ })
  assert.deepEqual(spellLiteral(2n ** 53n), { lit: '9007199254740992', type: 'Int64' })
  assert.throws(() => spellLiteral(300, 'Int8'), UsageError)
  assert.throws(() => spellLiteral('1.005', 'Decimal(4,2)'), UsageError)
  assert.throws(() => spellLiteral('\ud800'), UsageError)
})

test('floats are spelled in hexadecimal, and read back as the same bits', () => {
  const view = new DataView(new ArrayBuffer(8))
  let state = 42n
  for (let round = 0; round < 2000; round += 1) {
    state = (state * 6364136223846793005n + 1442695040888963407n) & (2n ** 64n - 1n)
    view.setBigUint64(0, state)
    const number = view.getFloat64(0)
    if (Number.isFinite(number)) assert.ok(Object.is(fromHex(hexFloat(number)), number))
  }
})

function fromHex(text: string): number {
  const parts = /^(-?)0x([01])\.([0-9a-f]{13})p([+-]\d+)$/.exec(text)
  if (!parts) return text === '-0x0.0p+0' ? -0 : 0
  const [, sign, head, digits = '', exponent] = parts
  const mantissa = Number(head) + Number(`0x${digits}`) / 2 ** 52
  // In two steps: 2^-1074 alone would not have room for the factor.
  const half = Math.trunc(Number(exponent) / 2)
  return (sign ? -1 : 1) * mantissa * 2 ** half * 2 ** (Number(exponent) - half)
}

test('an expression has no value of its own', () => {
  assert.throws(() => (col('a') as unknown as number) * 2, { name: 'UsageError' })
})

test('a deep function is refused before the stack is full', () => {
  const deep = `(r) => ${'('.repeat(5000)}r.a${')'.repeat(5000)}`
  const fn = Object.assign(() => 1, { toString: () => deep })
  // The engine's own text counts, not a method that somebody has put on the function.
  assert.doesNotThrow(() => rows.map(fn as never))
  const real = new Function(`return (r) => ${'('.repeat(500)}r.a${')'.repeat(500)}`)() as never
  assert.throws(() => rows.map(real), /nested deeper/)
})
