import assert from 'node:assert/strict'
import { test } from 'node:test'

import { cutParts, missingParts, partLength } from '../src/uploads/parts.ts'

test('parts cover the file once, in order, and only the last is shorter', () => {
  const parts = cutParts(10, 4)
  assert.deepEqual(parts.map(partLength), [4, 4, 2])
  assert.deepEqual(
    parts.map((part) => part.start),
    [0, 4, 8],
  )
})

test('parts of any size and cut add up to the file', () => {
  for (let size = 0; size <= 50; size += 1) {
    for (let partBytes = 1; partBytes <= 17; partBytes += 1) {
      const parts = cutParts(size, partBytes)
      assert.equal(
        parts.reduce((sum, part) => sum + partLength(part), 0),
        size,
      )
      assert.ok(parts.every((part, index) => part.index === index && partLength(part) > 0))
    }
  }
})

test('an empty file has no parts', () => {
  assert.deepEqual(cutParts(0, 16), [])
})

test('only the parts the node lacks are sent', () => {
  const parts = cutParts(10, 2)
  assert.deepEqual(
    missingParts(parts, [0, 3, 9]).map((part) => part.index),
    [1, 2, 4],
  )
})

test('sizes that are no sizes are refused', () => {
  assert.throws(() => cutParts(-1, 4), RangeError)
  assert.throws(() => cutParts(10, 0), RangeError)
})
