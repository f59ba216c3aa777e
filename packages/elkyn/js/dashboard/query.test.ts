import assert from 'node:assert/strict'
import { test } from 'node:test'

import { parametersOf, type QueryFields, scalarOf } from '../../src/elkyn/dashboard/query.js'

const fields = (changes: Partial<QueryFields>): QueryFields => ({
  order: 'child',
  child: 'age',
  range: 'any',
  low: '',
  high: '',
  end: 'first',
  limit: '',
  ...changes,
})

const CASES: [string, Partial<QueryFields>, Record<string, string>][] = [
  ['an order alone', {}, { orderBy: '"age"' }],
  ['a key is always text', { order: 'key', range: 'from', low: '12' }, { orderBy: '"$key"', startAt: '"12"' }], // prettier-ignore
  ['a number', { range: 'between', low: '1', high: '2.5' }, { orderBy: '"age"', startAt: '1', endAt: '2.5' }], // prettier-ignore
  ['text with quotes', { range: 'equal', low: '"12"' }, { orderBy: '"age"', equalTo: '"12"' }],
  ['text without', { range: 'to', low: 'ann' }, { orderBy: '"age"', endAt: '"ann"' }],
  ['the start of a text', { range: 'prefix', low: 'a' }, { orderBy: '"age"', startAt: '"a"', endAt: '"a\uf8ff"' }], // prettier-ignore
  ['the last ones', { order: 'value', end: 'last', limit: '3' }, { orderBy: '"$value"', limitToLast: '3' }], // prettier-ignore
  ['a path', { child: ' a/b ', limit: '7' }, { orderBy: '"a/b"', limitToFirst: '7' }],
]

for (const [what, input, expected] of CASES)
  test(`parameters of REST: ${what}`, () => assert.deepEqual(parametersOf(fields(input)), expected))

test('an order by a child needs the child', () => {
  assert.throws(() => parametersOf(fields({ child: ' ' })), /Name the child/)
})

test('a value is JSON, or text when it is not', () => {
  const read = ['1', 'true', 'null', '"1"', 'ann', '{"a":1}', ''].map(scalarOf)
  assert.deepEqual(read, [1, true, null, '1', 'ann', '{"a":1}', ''])
})
