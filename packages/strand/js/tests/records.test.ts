import assert from 'node:assert/strict'
import { test } from 'node:test'

import { PayloadTooLargeError, StrandCorruptError, type FieldSpec } from '../src/index.js'
import { openRing, readAll, VERSIONS } from './rings.js'

const ALL: FieldSpec[] = [
  { name: 'i32', type: 'i32', nullable: true },
  { name: 'u32', type: 'u32', nullable: true },
  { name: 'i64', type: 'i64', nullable: true },
  { name: 'f32', type: 'f32', nullable: true },
  { name: 'f64', type: 'f64', nullable: true },
  { name: 'u16', type: 'u16', nullable: true },
  { name: 'u8', type: 'u8', nullable: true },
  { name: 'bool8', type: 'bool8', nullable: true },
  { name: 'utf8', type: 'utf8', nullable: true },
  { name: 'utf8_ref', type: 'utf8_ref', nullable: true },
  { name: 'json', type: 'json', nullable: true },
  { name: 'bytes', type: 'bytes', nullable: true },
  { name: 'i32_array', type: 'i32_array', nullable: true },
  { name: 'f32_array', type: 'f32_array', nullable: true },
]
const FULL = {
  i32: -5,
  u32: 4294967295,
  i64: 2n ** 62n,
  f32: 0.5,
  f64: Math.PI,
  u16: 65535,
  u8: 255,
  bool8: true,
  utf8: 'naïve 🧵 and longer than any shortcut',
  utf8_ref: 'b',
  json: { a: [1, null] },
  bytes: new Uint8Array([0, 255]),
  i32_array: new Int32Array([1, -2]),
  f32_array: [0.25, -1.5],
}

for (const version of VERSIONS) {
  const options = { version, heapCapacity: 2048, metadata: { intern: ['a', 'b'] } }

  test(`v${version}: all fourteen types round trip through their getters`, () => {
    const { writer, view } = openRing(ALL, options)
    writer.writeRecordBatch([FULL, {}])
    const cursor = view.allocateCursor()
    assert.equal(cursor.seq, -1)
    assert.ok(cursor.seek(0))
    assert.equal(cursor.getI32('i32'), -5)
    assert.equal(cursor.getU32('u32'), 4294967295)
    assert.equal(cursor.getI64('i64'), 2n ** 62n)
    assert.equal(cursor.getF32('f32'), 0.5)
    assert.equal(cursor.getF64('f64'), Math.PI)
    assert.equal(cursor.getU16('u16'), 65535)
    assert.equal(cursor.getU8('u8'), 255)
    assert.equal(cursor.getBool('bool8'), true)
    assert.equal(cursor.getString('utf8'), FULL.utf8)
    assert.equal(cursor.getRef('utf8_ref'), 'b')
    assert.equal(cursor.getHandle('utf8_ref'), 1)
    assert.deepEqual(cursor.getJson('json'), FULL.json)
    assert.deepEqual([...cursor.getBytes('bytes')!], [0, 255])
    assert.deepEqual([...cursor.getI32Array('i32_array')!], [1, -2])
    assert.deepEqual([...cursor.getF32Array('f32_array')!], [0.25, -1.5])
    assert.ok(cursor.seek(1))
    assert.deepEqual(cursor.toTuple(), Array(14).fill(null))
    assert.equal(cursor.toObject()['utf8'], null)
  })

  test(`v${version}: bytes and arrays are views into the ring`, () => {
    const { buffer, writer, view } = openRing(ALL, options)
    writer.write(FULL)
    const cursor = view.allocateCursor()
    cursor.seek(0)
    const samples = cursor.getI32Array('i32_array')!
    assert.equal(samples.buffer, buffer)
    samples[0] = 77
    assert.equal(cursor.getI32Array('i32_array')![0], 77)
  })

  test(`v${version}: a pointer that leaves the heap is refused, not followed`, () => {
    const { buffer, writer, view } = openRing([{ name: 'b', type: 'bytes' }], { version })
    writer.write([new Uint8Array(9)])
    const words = new DataView(buffer, view.map.indexStart)
    if (version === 6) words.setUint32(8, 300, true)
    else words.setUint16(4, 300, true)
    const cursor = view.allocateCursor()
    cursor.seek(0)
    assert.throws(() => cursor.getBytes('b'), StrandCorruptError)
  })
}

test('text is decoded and JSON parsed once for a record', () => {
  const { writer, view } = openRing([{ name: 'j', type: 'json' }])
  writer.writeRecordBatch([[{ n: 1 }], [{ n: 2 }]])
  const cursor = view.allocateCursor()
  cursor.seek(0)
  const first = cursor.getJson('j')
  assert.equal(cursor.getJson('j'), first)
  cursor.seek(1)
  assert.deepEqual(cursor.getJson('j'), { n: 2 })
})

test('cursors see a new intern table at once', () => {
  const { writer, view } = openRing([{ name: 'kind', type: 'utf8_ref' }])
  writer.write([1])
  const cursor = view.allocateCursor()
  cursor.seek(0)
  assert.equal(cursor.getRef('kind'), null)
  view.updateInternTable(['type-a', 'type-b'])
  assert.equal(cursor.getRef('kind'), 'type-b')
})

test('a value that does not fit its field leaves the ring as it was', () => {
  const { writer, view } = openRing(ALL, { heapCapacity: 2048 })
  const wrong = [
    { u8: 256 },
    { i32: 1.5 },
    { u32: -1 },
    { i64: 2n ** 63n },
    { i64: 2 ** 60 },
    { bool8: 1 },
    { utf8: 7 },
    { json: () => 1 },
    { bytes: 'text' },
    { i32_array: [2 ** 31] },
    { f32_array: ['1'] },
    { utf8_ref: 'nobody knows' },
    { surprise: 1 },
    [1, 2],
    null as never,
  ]
  for (const record of wrong) assert.throws(() => writer.write(record), /field|record/)
  assert.equal(view.committedCount, 0)
})

test('the records before a bad one are written', () => {
  const { writer, view } = openRing([{ name: 'n', type: 'u8' }])
  assert.throws(() => writer.writeRecordBatch([[1], [2], [999], [3]]), RangeError)
  assert.deepEqual(readAll(view), [[1], [2]])
})

test('a field that may not be null says so', () => {
  const { writer } = openRing([{ name: 'n', type: 'u8' }])
  assert.throws(() => writer.write({ n: null }), /'n' cannot be null/)
  assert.throws(() => writer.write({}), /'n' cannot be null/)
})

test('payloads have limits: half of the heap, and 65535 bytes in v5', () => {
  const field: FieldSpec[] = [{ name: 'b', type: 'bytes' }]
  const { writer, view } = openRing(field, { heapCapacity: 256 })
  assert.throws(() => writer.write([new Uint8Array(129)]), PayloadTooLargeError)
  writer.write([new Uint8Array(128)])
  assert.equal(view.committedCount, 1)
  const old = openRing(field, { version: 5, heapCapacity: 2 ** 20 })
  assert.throws(() => old.writer.write([new Uint8Array(65536)]), PayloadTooLargeError)
  old.writer.write([new Uint8Array(65535)])
  const wide = openRing(field, { heapCapacity: 2 ** 20 })
  wide.writer.write([new Uint8Array(300_000).fill(9)])
  const cursor = wide.view.allocateCursor()
  cursor.seek(0)
  assert.equal(cursor.getBytes('b')!.length, 300_000)
})

test('getters name the requested field and type', () => {
  const { writer, view } = openRing([{ name: 'n', type: 'u8' }])
  writer.write([1])
  const cursor = view.allocateCursor()
  assert.throws(() => cursor.getU8('n'), /seek a record/)
  cursor.seek(0)
  assert.throws(() => cursor.getU32('n'), /'n' is u8, not u32/)
  assert.throws(() => cursor.get('m'), /no field 'm'/)
})
