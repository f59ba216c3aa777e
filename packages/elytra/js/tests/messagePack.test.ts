import assert from 'node:assert/strict'
import test from 'node:test'

import { SennitError } from '../src/errors.ts'
import { pack, unpack, type Packed } from '../src/worker/messagePack.ts'
import { decode } from '../src/worker/messages.ts'

const VALUES: Packed[] = [
  null,
  true,
  [
    0,
    127,
    128,
    255,
    256,
    65_536,
    2 ** 32,
    2 ** 53 - 1,
    -1,
    -32,
    -33,
    -129,
    -(2 ** 40),
    0.5,
    -1e300,
  ],
  ['', 'a'.repeat(31), 'a'.repeat(32), 'naïve 👍'.repeat(9_000)],
  new Uint8Array([0, 255]),
  { word: 'hello', members: { a: [null, { b: 'c' }] } },
]

test('values are read back', () => {
  for (const value of VALUES) assert.deepEqual(unpack(pack(value)), value)
})

test('other encodings of the same values are read', () => {
  const hex: [string, Packed][] = [
    ['93 01 e0 cc ff', [1, -32, 255]],
    ['cd 01 00', 256],
    ['d1 ff 7f', -129],
    ['ca 3f 00 00 00', 0.5],
    ['d9 01 61', 'a'],
    ['c4 02 00 ff', new Uint8Array([0, 255])],
    ['81 a1 61 dc 00 01 c3', { a: [true] }],
  ]
  for (const [text, value] of hex)
    assert.deepEqual(unpack(Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'))), value)
})

test('bytes that are none are refused, and huge counts reserve no memory', () => {
  const bad = [
    '',
    'c1',
    'dd ff ff ff ff',
    'df ff ff ff ff',
    'c6 ff ff ff ff',
    'a5 61',
    '01 01',
    '81 01 01',
  ]
  for (const text of bad)
    assert.throws(
      () => unpack(Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'))),
      SennitError,
    )
  assert.throws(() => unpack(new Uint8Array(1000).fill(0x91)), SennitError)
  assert.throws(() => decode(pack({ word: 'evaluate', code: '1' })), /the word evaluate/)
})
