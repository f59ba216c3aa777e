import assert from 'node:assert/strict'
import { test } from 'node:test'

import { BadValue } from '../src/errors.ts'
import { compareKeys, parsePath } from '../src/paths.ts'
import { PushIds } from '../src/pushIds.ts'
import { mulberry } from './random.ts'
import {
  fromJson,
  getAt,
  type Json,
  present,
  same,
  setAt,
  type Value,
  prepare,
} from '../src/values.ts'

const resolver = { now: 7, current: () => 41 }
const shown = (value: Value): Json => present(prepare(value, [], resolver))

test('null, empty objects and empty arrays are not stored', () => {
  assert.equal(shown({ a: null, b: {}, c: [], d: { e: undefined } }), null)
  assert.deepEqual(shown({ a: 0, b: '', c: false, d: null }), { a: 0, b: '', c: false })
})

test('arrays round trip while their keys are dense', () => {
  assert.deepEqual(shown(['x', null, 'z']), ['x', null, 'z'])
  assert.deepEqual(shown({ 0: 'x', 5: 'y' }), { 0: 'x', 5: 'y' })
  assert.deepEqual(shown({ 1: 'x' }), [null, 'x'])
  assert.deepEqual(shown({ 2: 'x' }), { 2: 'x' })
  assert.deepEqual(shown({ '-1': 'x', 0: 'y' }), { '-1': 'x', 0: 'y' })
})

test('a key that names a property of objects is a key like any other', () => {
  const stored = fromJson(JSON.parse('{"__proto__": 1, "constructor": 2}') as Json)
  assert.equal(getAt(stored, ['__proto__']), 1)
  assert.equal(JSON.stringify(present(stored)), '{"__proto__":1,"constructor":2}')
})

test('children are in the order of their keys: integers, then text by its units', () => {
  const keys = ['b', '10', '9', '-3', '010', 'a', '\u{1F600}', '\uFF61', '2147483648']
  const order = ['-3', '9', '10', '010', '2147483648', 'a', 'b', '\u{1F600}', '\uFF61']
  assert.deepEqual(keys.sort(compareKeys), order)
  for (const left of keys)
    for (const right of keys) {
      const sign = Math.sign(compareKeys(left, right))
      assert.equal(sign, -Math.sign(compareKeys(right, left)) + 0)
    }
})

test('server values are resolved in place', () => {
  assert.deepEqual(shown({ at: { '.sv': 'timestamp' }, n: { '.sv': { increment: 1 } } }), {
    at: 7,
    n: 42,
  })
  assert.throws(() => shown({ '.sv': 'random' }), BadValue)
})

for (const [what, value] of [
  ['a number that is none', Number.NaN],
  ['a forbidden key', { 'a.b': 1 }],
  ['half a surrogate pair', '\ud800'],
  ['a function', (() => 1) as unknown as Value],
  ['a key over 768 bytes', { ['é'.repeat(385)]: 1 }],
] as [string, Value][]) {
  test(`${what} is refused`, () => assert.throws(() => shown(value), BadValue))
}

test('values deeper than 32 levels are refused', () => {
  const nest = (levels: number): Value => (levels === 0 ? 1 : { a: nest(levels - 1) })
  assert.doesNotThrow(() => shown(nest(32)))
  assert.throws(() => shown(nest(33)), BadValue)
  assert.throws(() => parsePath('a/'.repeat(33)), BadValue)
})

test('setting and getting agree with plain objects on random writes', () => {
  const random = mulberry(20)
  const keys = ['a', 'b', '0', '1', '7']
  let stored = fromJson(null)
  const plain = new Map<string, number>()
  for (let step = 0; step < 4000; step += 1) {
    const path = Array.from(
      { length: 1 + Math.floor(random() * 3) },
      () => keys[Math.floor(random() * 5)] ?? 'a',
    )
    const text = path.join('/')
    const value = random() < 0.3 ? null : step
    for (const known of [...plain.keys()]) {
      if (
        known === text ||
        known.startsWith(`${text}/`) ||
        (value !== null && text.startsWith(`${known}/`))
      )
        plain.delete(known)
    }
    if (value !== null) plain.set(text, value)
    const before = stored
    stored = setAt(stored, path, value)
    assert.equal(
      same(before, stored),
      present(before) === present(stored) ||
        JSON.stringify(present(before)) === JSON.stringify(present(stored)),
    )
    for (const [known, kept] of plain) assert.equal(getAt(stored, known.split('/')), kept)
    assert.equal(leaves(stored), plain.size)
  }
})

test('push ids grow, also within a millisecond and when the clock is set back', () => {
  let now = 1_700_000_000_000
  const ids = new PushIds(() => now)
  const made: string[] = []
  for (let step = 0; step < 3000; step += 1) {
    if (step % 7 === 0) now += step % 21 === 0 ? -5 : 1
    made.push(ids.next())
  }
  assert.deepEqual(made, [...made].sort())
  assert.equal(new Set(made).size, made.length)
  assert.ok(made.every((id) => /^[-0-9A-Z_a-z]{20}$/.test(id)))
})

function leaves(value: ReturnType<typeof fromJson>): number {
  if (value === null) return 0
  return value instanceof Map
    ? [...value.values()].reduce<number>((sum, child) => sum + leaves(child), 0)
    : 1
}

test('keys are in the order of the Firebase SDKs', () => {
  const keys = [
    ...['-12', '-1', '-01', '0', '-0', '000', '1', '01', '001', '2', '09', '10', '0000000000012'],
    ...['-2147483649', '2147483648', '99999999999', 'a', '\u{10000}', '\u{1f600}', '\ue000'],
  ]
  assert.deepEqual([...keys].reverse().sort(compareKeys), [...keys].sort(compareKeys))
  const integers = keys.slice(0, 13)
  assert.deepEqual([...integers].reverse().sort(compareKeys), integers)
  const texts = keys.slice(16)
  assert.deepEqual([...texts].reverse().sort(compareKeys), texts)
})

test('a key with leading zeros is no place in an array', () => {
  const padded = { '01': 1, '02': 2 }
  assert.deepEqual(present(fromJson(padded)), padded)
  assert.deepEqual(present(fromJson({ 0: 1, '01': 2 })), { 0: 1, '01': 2 })
  assert.deepEqual(present(fromJson({ 0: 1, 1: 2 })), [1, 2])
})
