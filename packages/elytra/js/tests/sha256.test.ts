import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { test } from 'node:test'

import { sha256, sha256Hex } from '../src/sha256.ts'

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

test('the standard test vectors', () => {
  const encode = (text: string) => new TextEncoder().encode(text)
  assert.equal(
    hex(sha256(encode(''))),
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  )
  assert.equal(
    hex(sha256(encode('abc'))),
    'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
  )
})

test('plain JavaScript agrees with the platform at every length around a block', () => {
  for (let length = 0; length <= 300; length += 1) {
    const bytes = randomBytes(length)
    assert.equal(
      hex(sha256(bytes)),
      createHash('sha256').update(bytes).digest('hex'),
      `length ${length}`,
    )
  }
})

test('a view into a larger buffer is hashed by itself', () => {
  const bytes = randomBytes(1_000).subarray(100, 900)
  assert.equal(hex(sha256(bytes)), createHash('sha256').update(bytes).digest('hex'))
})

test('without crypto.subtle the same digest comes out', async () => {
  const bytes = new Uint8Array(randomBytes(100_000))
  const secure = await sha256Hex(bytes)
  const platform = Object.getOwnPropertyDescriptor(globalThis, 'crypto')!
  Object.defineProperty(globalThis, 'crypto', { value: undefined, configurable: true })
  try {
    assert.equal(await sha256Hex(bytes), secure)
  } finally {
    Object.defineProperty(globalThis, 'crypto', platform)
  }
})
