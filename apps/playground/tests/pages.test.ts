import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ApiError, type SqlAnswer } from '../lib/api'
import { PagedRows, windowOf } from '../lib/pages'
import { profileColumns, profileSql, type ProfileState } from '../lib/profile'
import { selectionText } from '../lib/sql/selection'

const COLUMNS = [{ name: 'n', type: 'Int64' }]

/** Rows of a node that answers at once; `requested` records each page. */
function paged(total: number, value: (row: number) => unknown = (row) => row) {
  const requested: [number, number][] = []
  const rows = new PagedRows(total, (offset, limit) => {
    requested.push([offset, limit])
    const count = Math.max(0, Math.min(limit, total - offset))
    const page = Array.from({ length: count }, (_, at) => [value(offset + at)])
    return Promise.resolve({ columns: COLUMNS, rows: page, truncated: false })
  })
  return { rows, requested }
}

const settled = () => new Promise((resolve) => setImmediate(resolve))

test('rows are fetched where they are wanted, and few are held', async () => {
  const { rows, requested } = paged(2_000_000)
  rows.start()
  await settled()
  for (let row = 0; row < 2_000_000; row += 40_000) {
    rows.want(row, row + 30)
    await settled()
    assert.deepEqual(rows.at(row), [row])
  }
  assert.equal(rows.at(0)?.[0], 0) // the first rows stay, for the widths of columns
  assert.equal(rows.at(40_000), undefined)
  assert.ok(requested.every(([, limit]) => limit <= 500))
  rows.want(1_999_990, 2_000_010)
  await settled()
  assert.deepEqual(rows.at(1_999_999), [1_999_999])
})

test('long rows come in small pages', async () => {
  const { rows, requested } = paged(1000, () => 'x'.repeat(100_000))
  rows.start()
  await settled()
  rows.want(500, 505)
  await settled()
  assert.ok(requested.slice(1).every(([, limit]) => limit <= 10))
})

test('an error stops the fetching until it is tried again', async () => {
  let broken = true
  const rows = new PagedRows(100, () =>
    broken
      ? Promise.reject(new ApiError('gone', 404, 'not-found'))
      : Promise.resolve({ columns: COLUMNS, rows: [[7]], truncated: false }),
  )
  let changes = 0
  rows.subscribe(() => (changes += 1))
  rows.start()
  await settled()
  assert.equal(rows.error?.code, 'not-found')
  broken = false
  rows.start()
  await settled()
  assert.equal(rows.error, null)
  assert.deepEqual(rows.at(0), [7])
  assert.ok(changes >= 3)
})

test('a part of the rows is counted from its own start', () => {
  const part = windowOf([['a'], ['b'], ['c']], 1, 5)
  assert.equal(part.length, 2)
  assert.deepEqual(part.at(0), ['b'])
})

test('rows that are not in memory are not copied as if they were empty', () => {
  const all = { anchor: { row: 0, column: 0 }, focus: { row: 1, column: 0 } }
  const rows = { length: 2, at: (row: number) => (row === 0 ? ['a'] : undefined) }
  assert.equal(selectionText(rows, all, String), null)
  assert.equal(selectionText([['a'], ['b']], all, String), 'a\nb')
})

const TABLE = {
  name: 't',
  rows: 10,
  columns: Array.from({ length: 20 }, (_, n) => ({ name: `c${n}`, type: 'Int64' })),
}

/** Profile the table; `answer` is called for each batch. */
async function profiled(answer: () => Promise<SqlAnswer>, nowMs = () => 0) {
  const states: ProfileState[] = []
  await profileColumns(TABLE, new Map(), answer, (state) => states.push(state), nowMs)
  return states.map(({ state, columns, outOfTime }) => [state, columns.size, outOfTime] as const)
}

const batch: SqlAnswer = { columns: [], rows: [Array(24).fill(1)], truncated: false }

test('a profile reports every batch and ends', async () => {
  assert.deepEqual(await profiled(() => Promise.resolve(batch)), [
    ['running', 0, false],
    ['running', 8, false],
    ['running', 16, false],
    ['done', 20, false],
  ])
})

test('a profile ends at its deadline, on either side', async () => {
  let now = 0
  const slow = () => ((now += 40_000), Promise.resolve(batch))
  assert.deepEqual((await profiled(slow, () => now)).at(-1), ['stopped', 16, true])
  const expired = () => Promise.reject(new ApiError('late', 504, 'deadline-exceeded'))
  assert.deepEqual((await profiled(expired)).at(-1), ['stopped', 0, true])
})

test('a cancelled profile keeps what it has, and a refusal is a failure', async () => {
  let batches = 0
  const aborted = () =>
    ++batches < 2 ? Promise.resolve(batch) : Promise.reject(new DOMException('', 'AbortError'))
  assert.deepEqual((await profiled(aborted)).at(-1), ['stopped', 8, false])
  const refused = () => Promise.reject(new ApiError('no', 400, 'sql'))
  assert.deepEqual((await profiled(refused)).at(-1), ['failed', 0, false])
})

test('a profile asks for what a type has, and for a sample of a large table', () => {
  const columns = [
    { name: 'a"b', type: 'Utf8' },
    { name: 'when', type: 'Timestamp(us)' },
    { name: 'list', type: 'List<Int64>' },
  ]
  assert.equal(
    profileSql('t', 100, columns),
    'select approx_count_distinct("a""b") as v0, null as v1, null as v2, ' +
      'approx_count_distinct("when") as v3, null as v4, approx_quantile("when", 0.5) as v5, ' +
      'null as v6, null as v7, null as v8 from t',
  )
  assert.match(
    profileSql('t', 50_000_000, columns),
    / from t tablesample system \(10\.00 percent\)$/,
  )
})
