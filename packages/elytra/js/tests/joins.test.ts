import assert from 'node:assert/strict'
import test from 'node:test'

import { readArrow, splitStreams } from '../src/arrow/read.ts'
import { writeArrow } from '../src/arrow/write.ts'
import { valueAt, type Batch } from '../src/engine/batch.ts'
import { joined } from '../src/engine/joined.ts'
import type { Value } from '../src/engine/literals.ts'
import { PlanRun } from '../src/engine/planRun.ts'
import { SennitError, Unsupported } from '../src/errors.ts'
import { col } from '../src/plan/expr.ts'
import type { JoinKind, PlanJson, PlanNode } from '../src/plan/json.ts'
import { compute } from '../src/worker/compute.ts'
import { randoms } from './randoms.ts'

type Row = Record<string, Value | null>
const TYPES: Record<string, string> = {
  n: 'Int64', t: 'Utf8', b: 'Bool', day: 'Date', x: 'Float64', k: 'Int64', v: 'Utf8',
} // prettier-ignore
const KEYS: Record<string, string>[] = [
  { n: 'n' },
  { t: 't' },
  { n: 'k' },
  { t: 't', n: 'n' },
  { b: 'b', day: 'day' },
]
const SIDE: PlanNode = { op: 'scan', source: { files: ['side-0'], format: 'arrow' } as never }
const SCAN: PlanNode = { op: 'scan', source: { files: ['shard-0'], format: 'arrow' } as never }

function rowsOf(names: readonly string[], count: number, random: () => number): Row[] {
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)] as T
  const makers: Record<string, () => Value | null> = {
    n: () => pick([null, 0, 1, 2, 3, 2 ** 53 - 1, 2n ** 60n, -(2n ** 60n)]),
    k: () => pick([null, 0, 1, 2n ** 60n]),
    t: () => pick([null, '', 'a', 'naïve', `t${Math.floor(random() * 4)}`]),
    v: () => pick([null, 'x', 'y']),
    b: () => pick([null, true, false]),
    day: () => pick([null, -1, 0, 20_000]),
    x: () => pick([null, 0.5, -0, NaN]),
  }
  return Array.from({ length: count }, () =>
    Object.fromEntries(names.map((name) => [name, makers[name]?.() ?? null])),
  )
}

function stream(names: readonly string[], rows: readonly Row[]): Uint8Array<ArrayBuffer> {
  const columns = names.map((name) => ({
    name,
    type: TYPES[name] ?? '',
    values: rows.map((row) => row[name] ?? null),
  }))
  return writeArrow(columns, rows.length)
}

/** As text: a whole number is a bigint in one batch and a double in the other. */
function shown({ fields, columns, rows }: Batch): string[] {
  return Array.from({ length: rows }, (_, row) =>
    fields
      .map(({ name, type }, at) => {
        const column = columns[at]
        return `${name}=${column ? textOf(valueAt(column, type, row)) : ''}`
      })
      .join(),
  )
}

const textOf = (value: Value | null): string => (Object.is(value, -0) ? '-0' : String(value))

/** The rows of a join, found by comparing each row with each. */
function expected(how: JoinKind, on: Record<string, string>, left: Row[], right: Row[]): string[] {
  const isMatch = (one: Row, other: Row): boolean =>
    Object.entries(on).every(
      ([a, b]) => one[a] !== null && other[b] !== null && String(one[a]) === String(other[b]),
    )
  const shared = Object.entries(on).flatMap(([a, b]) => (a === b ? [a] : []))
  const rightNames = Object.keys(right[0] ?? {}).filter((name) => !shared.includes(name))
  const merged = (one: Row, other: Row | null): Row => ({
    ...one,
    ...Object.fromEntries(
      rightNames.map((name) => [name in one ? `${name}_right` : name, other?.[name] ?? null]),
    ),
  })
  const rows = left.flatMap((one): Row[] => {
    const found = right.filter((other) => isMatch(one, other))
    if (how === 'semi' || how === 'anti') return found.length > 0 === (how === 'semi') ? [one] : []
    if (how === 'left' && found.length === 0) return [merged(one, null)]
    return found.map((other) => merged(one, other))
  })
  return rows.map((row) =>
    Object.entries(row)
      .map(([name, value]) => `${name}=${textOf(value)}`)
      .join(),
  )
}

function planOf(how: JoinKind, on: Record<string, string>, left: PlanNode = SCAN): PlanNode {
  const pairs = Object.entries(on).map(([one, other]) => ({ left: one, right: other }))
  return { op: 'join', left, right: SIDE, on: pairs, ...(how !== 'inner' && { how }) }
}

test('rows of a join are those of a comparison of all rows, in their order, for all cuts', () => {
  const random = randoms(7)
  const [leftNames, rightNames] = [
    ['n', 't', 'b', 'day', 'x'],
    ['v', 'k', 'n', 't', 'b', 'day'],
  ]
  for (const on of KEYS)
    for (const how of ['inner', 'left', 'semi', 'anti'] as const) {
      const left = rowsOf(leftNames, 120, random)
      const right = rowsOf(rightNames, 1 + Math.floor(random() * 25), random)
      const { fields, batches } = readArrow(stream(rightNames, right))
      const side = joined(fields, [...batches()])
      const found: string[] = []
      const cuts = [left.slice(0, 50), left.slice(50, 51), left.slice(51)]
      const run = new PlanRun(
        planOf(how, on),
        readArrow(stream(leftNames, [])).fields,
        new Map([['side-0', side]]),
      )
      for (const cut of cuts)
        for (const batch of readArrow(stream(leftNames, cut)).batches()) run.add(batch)
      found.push(...shown(run.finish()))
      assert.deepEqual(found, expected(how, on, left, right), `${how} ${JSON.stringify(on)}`)
    }
})

test('a side without rows, of several dictionaries, or of bigints', () => {
  const left = [{ n: 1, t: 'a' }, { n: 2n ** 60n, t: 'b' }] // prettier-ignore
  const side = [{ n: 2n ** 60n, v: 'x' }, { n: 1, v: 'y' }] // prettier-ignore
  for (const rows of [[], side]) {
    const { fields, batches } = readArrow(stream(['n', 'v'], rows))
    // Each reader has a dictionary of its own.
    const halves = rows.map(
      (row) => [...readArrow(stream(['n', 'v'], [row])).batches()][0] as Batch,
    )
    for (const whole of [joined(fields, [...batches()]), joined(fields, halves)]) {
      const input = readArrow(stream(['n', 't'], left))
      const run = new PlanRun(
        planOf('left', { n: 'n' }),
        input.fields,
        new Map([['side-0', whole]]),
      )
      for (const batch of input.batches()) run.add(batch)
      const wanted = rows.length > 0 ? ['y', 'x'] : ['null', 'null']
      const found = shown(run.finish())
      assert.deepEqual(found, [`n=1,t=a,v=${wanted[0]}`, `n=${2n ** 60n},t=b,v=${wanted[1]}`])
    }
  }
})

test('joins that JavaScript does not compute are refused before the rows come', () => {
  const { fields, batches } = readArrow(stream(['n', 'x', 'v'], [{ n: 1, x: 0.5, v: 'a' }]))
  const sides = new Map([['side-0', joined(fields, [...batches()])]])
  const of = (plan: PlanNode) => (): PlanRun => new PlanRun(plan, fields, sides)
  for (const how of ['right', 'full', 'cross'] as const)
    assert.throws(of(planOf(how, { n: 'n' })), Unsupported)
  assert.throws(of(planOf('inner', { x: 'x' })), Unsupported)
  assert.throws(of(planOf('inner', { n: 'x' })), Unsupported)
  const other = { ...(planOf('inner', { n: 'n' }) as object), right: SCAN } as PlanNode
  assert.throws(of(other), Unsupported)
  assert.throws(
    of({ ...(other as object), right: { op: 'scan', source: { dataset: 's' } } } as never),
    Unsupported,
  )
})

test('a join whose rows do not fit into memory fails with that', () => {
  const rows = Array.from({ length: 2500 }, () => ({ n: 1, v: 'a' }))
  const { fields, batches } = readArrow(stream(['n', 'v'], rows))
  const side = joined(fields, [...batches()])
  const run = new PlanRun(planOf('inner', { n: 'n' }), fields, new Map([['side-0', side]]))
  assert.throws(
    () => run.add(side),
    (error) => error instanceof SennitError && error.code === 'memory-cap-exceeded',
  )
})

test('a task reads its sides behind the rows of the shard, and goes on above the join', async () => {
  const left = stream(['n', 't'], [{ n: 1, t: 'a' }, { n: 2, t: 'b' }, { n: 3, t: 'a' }]) // prettier-ignore
  const first = stream(['t', 'v'], [{ t: 'a', v: 'x' }, { t: 'c', v: 'y' }]) // prettier-ignore
  const second = stream(['k'], [{ k: 1 }, { k: 2 }])
  const input = new Uint8Array(Buffer.concat([left, first, second]))
  assert.deepEqual(splitStreams(input).map(({ length }) => length), [left, first, second].map(({ length }) => length)) // prettier-ignore
  const below = planOf('inner', { t: 't' })
  const right: PlanNode = { op: 'scan', source: { files: ['side-1'], format: 'arrow' } as never }
  const plan: PlanJson = {
    v: 1,
    op: 'project',
    input: { op: 'join', left: below, right, how: 'anti', on: [{ left: 'n', right: 'k' }] },
    columns: [{ name: 'w', expr: col('v').json }, { name: 'n', expr: col('n').json }], // prettier-ignore
  }
  const schema = { fields: [{ name: 'w', type: 'Utf8' }, { name: 'n', type: 'Int64' }] } // prettier-ignore
  const rows = async (bytes: Uint8Array): Promise<string[]> => {
    const made = readArrow(await compute(plan, schema, bytes, () => Promise.resolve()))
    return shown(joined(made.fields, [...made.batches()]))
  }
  assert.deepEqual(await rows(input), ['w=x,n=3'])
  for (const cut of [left.length + first.length, input.length - 9, left.length + 3])
    await assert.rejects(rows(input.slice(0, cut)), (error) => error instanceof SennitError)
})
