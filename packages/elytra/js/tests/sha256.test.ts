import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { test } from 'node:test'

import { BlobHasher, sha256Hex } from '../src/uploads/sha256.ts'

async function withoutSubtle<T>(action: () => Promise<T>): Promise<T> {
  const platform = Object.getOwnPropertyDescriptor(globalThis, 'crypto')!
  Object.defineProperty(globalThis, 'crypto', { value: undefined, configurable: true })
  try {
    return await action()
  } finally {
    Object.defineProperty(globalThis, 'crypto', platform)
  }
}

test('the standard test vector', async () => {
  const bytes = new TextEncoder().encode('abc')
  const expected = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
  assert.equal(await sha256Hex(bytes), expected)
  assert.equal(await withoutSubtle(() => sha256Hex(bytes)), expected)
})

test('with and without crypto.subtle the digest is the same, at every length around a block', async () => {
  for (let length = 0; length <= 130; length += 1) {
    const bytes = new Uint8Array(randomBytes(length))
    const expected = createHash('sha256').update(bytes).digest('hex')
    assert.equal(await sha256Hex(bytes), expected, `length ${length}`)
    assert.equal(await withoutSubtle(() => sha256Hex(bytes)), expected, `length ${length}`)
  }
})

test('a view into a larger buffer is hashed by itself', async () => {
  const bytes = new Uint8Array(randomBytes(1_000)).subarray(100, 900)
  const expected = createHash('sha256').update(bytes).digest('hex')
  assert.equal(await withoutSubtle(() => sha256Hex(bytes)), expected)
})

test('parts that are hashed at the same time, long and short, have their own hashes', async () => {
  const parts = [300_000, 5, 0, 299_999, 70_000].map((size) => new Uint8Array(randomBytes(size)))
  const expected = parts.map((part) => createHash('sha256').update(part).digest('hex'))
  const hasher = new BlobHasher()
  const hashes = () => Promise.all(parts.map((part) => hasher.hash(new Blob([part]))))
  assert.deepEqual(await hashes(), expected)
  assert.deepEqual(await withoutSubtle(hashes), expected)
})
