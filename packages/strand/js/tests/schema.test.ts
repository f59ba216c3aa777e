import assert from 'node:assert/strict'
import { test } from 'node:test'

import { buildSchema, schemaFingerprint, slotLayout, type FieldSpec } from '../src/index.js'

const CHECKED: FieldSpec[] = [
  { name: 'a', type: 'u8' },
  { name: 'b', type: 'i64' },
  { name: 'c', type: 'utf8' },
  { name: 'd', type: 'f64' },
  { name: 'e', type: 'u16', nullable: true },
]

test('the layout of the specification has its offsets, stride and fingerprint', () => {
  const schema = buildSchema(CHECKED)
  const layout = slotLayout(schema, 5)
  assert.deepEqual(layout.byteOffsets, [1, 4, 12, 20, 28])
  assert.equal(layout.recordStride, 32)
  assert.equal(schemaFingerprint(schema, 5), 0xc4f6858f)
})

test('version 6 aligns naturally and has pointers of 16 bytes', () => {
  const layout = slotLayout(buildSchema(CHECKED), 6)
  assert.deepEqual(layout.byteOffsets, [1, 8, 16, 32, 40])
  assert.equal(layout.recordStride, 48)
})

test('names are no part of the fingerprint', () => {
  const renamed = CHECKED.map((field) => ({ ...field, name: `${field.name}2` }))
  assert.equal(schemaFingerprint(buildSchema(renamed)), schemaFingerprint(buildSchema(CHECKED)))
})

test('fields that make no schema are refused', () => {
  assert.throws(() => buildSchema([]), RangeError)
  assert.throws(() => buildSchema([CHECKED[0]!, CHECKED[0]!]), /two fields are named 'a'/)
  assert.throws(() => buildSchema([{ name: '', type: 'u8' }]), TypeError)
  assert.throws(() => buildSchema([{ name: 'x', type: 'u128' as 'u32' }]), /unknown type 'u128'/)
  assert.throws(() => buildSchema([{ name: 'x', type: 'toString' as 'u32' }]), TypeError)
})

test('a descending field needs version 6', () => {
  const schema = buildSchema([{ name: 'x', type: 'u8', order: 'descending' }])
  assert.throws(() => slotLayout(schema, 5), TypeError)
  assert.equal(slotLayout(schema, 6).recordStride, 8)
})
