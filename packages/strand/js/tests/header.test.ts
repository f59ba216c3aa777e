import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  buildSchema,
  computeStrandMap,
  initStrandHeader,
  readStrandHeader,
  StrandHeaderError,
  StrandView,
} from '../src/index.js'
import { fnv1a } from '../src/schema.js'
import { freshRing, VERSIONS } from './rings.js'

const FIELDS = [
  { name: 'id', type: 'u32' },
  { name: 'note', type: 'utf8', nullable: true },
] as const
const METADATA_AT = 92 + 10

function header(): { buffer: SharedArrayBuffer; words: DataView } {
  const buffer = freshRing(FIELDS, { version: 5, indexCapacity: 4 })
  return { buffer, words: new DataView(buffer) }
}

/** Recompute checksum and fingerprint after a change. */
function seal(words: DataView): void {
  const bytes = new Uint8Array(words.buffer)
  words.setUint32(8, fnv1a(bytes.subarray(92, 92 + words.getUint32(88, true))), true)
  words.setUint32(24, fnv1a(bytes.subarray(0, 24)), true)
}

function set(at: number, value: number): (words: DataView) => void {
  return (words) => {
    words.setUint32(at, value, true)
    if (at >= 12) seal(words)
  }
}

for (const version of VERSIONS)
  test(`a v${version} header reads back as it was planned`, () => {
    const map = computeStrandMap({
      schema: buildSchema(FIELDS),
      indexCapacity: 4,
      heapCapacity: 256,
      version,
      query: { chrom: 'part-0' },
      estimatedRecords: 50,
      metadata: { intern: ['a', 'b'] },
    })
    const buffer = new SharedArrayBuffer(map.totalBytes)
    initStrandHeader(buffer, map)
    assert.deepEqual(readStrandHeader(buffer), map)
    assert.deepEqual(Object.keys(map.metadata), ['intern', 'query', 'estimated_records', 'columns'])
  })

const DAMAGES: [string, string, (words: DataView) => void][] = [
  ['magic', 'magic', (words) => words.setUint8(0, 1)],
  ['version', 'version', set(4, 7)],
  ['checksum', 'checksum', (words) => words.setUint8(24, words.getUint8(24) ^ 1)],
  ['schema length', 'schema-length', (words) => words.setUint32(88, 5000, true)],
  ['field count', 'schema-length', (words) => words.setUint16(92, 3, true)],
  ['type tag', 'field', (words) => words.setUint8(94, 14)],
  ['flags', 'field', (words) => words.setUint8(95, 8)],
  ['descending in v5', 'field', (words) => words.setUint8(95, 4)],
  ['overlap', 'stride', (words) => (words.setUint16(96, 0, true), seal(words))],
  ['stride', 'stride', set(12, 20)],
  ['capacity', 'geometry', set(16, 3)],
  ['heap', 'geometry', set(20, 300)],
  ['size', 'geometry', set(20, 512)],
  ['metadata', 'metadata', (words) => words.setUint8(METADATA_AT + 4, 0x5b)],
  ['metadata length', 'metadata', (words) => words.setUint32(METADATA_AT, 3000, true)],
  ['column name', 'metadata', (words) => words.setUint8(METADATA_AT + 4 + 13, 0)],
]

for (const [what, check, damage] of DAMAGES)
  test(`a damaged ${what} fails the ${check} check`, () => {
    const { buffer, words } = header()
    damage(words)
    assert.throws(
      () => readStrandHeader(buffer),
      (error) => error instanceof StrandHeaderError && error.check === check,
    )
  })

test('a wrong fingerprint is found after the fields and before the stride', () => {
  const { buffer, words } = header()
  words.setUint32(8, 1, true)
  words.setUint32(12, 20, true)
  words.setUint32(24, fnv1a(new Uint8Array(buffer, 0, 24)), true)
  assert.throws(() => readStrandHeader(buffer), { check: 'fingerprint' })
})

test('fewer bytes than a header are refused first', () => {
  assert.throws(() => readStrandHeader(new SharedArrayBuffer(4095)), { check: 'size' })
})

test('a v6 ring without its counters grants no roles', () => {
  const buffer = freshRing([{ name: 'n', type: 'u32' }], { version: 6 })
  new DataView(buffer).setUint32(3072, 0, true)
  assert.equal(readStrandHeader(buffer).version, 6)
  assert.throws(() => new StrandView(buffer), { check: 'extension' })
})

test('any noise is refused as a header', () => {
  let state = 7
  for (let round = 0; round < 500; round += 1) {
    const { buffer, words } = header()
    for (let at = 0; at < 40; at += 1) {
      state = Math.imul(state, 1103515245) + 12345
      words.setUint8(4 + ((state >>> 8) % 180), state >>> 24)
    }
    words.setUint32(24, fnv1a(new Uint8Array(buffer, 0, 24)), true)
    try {
      readStrandHeader(buffer)
    } catch (error) {
      assert.ok(error instanceof StrandHeaderError, String(error))
    }
  }
})

test('parameters that make no ring are refused', () => {
  const schema = buildSchema(FIELDS)
  const wrong = [
    { indexCapacity: 3 },
    { indexCapacity: 0 },
    { heapCapacity: 1000 },
    { heapCapacity: 64 },
    { version: 4 as 5 },
    { estimatedRecords: -1 },
    { metadata: { note: 'x'.repeat(3000) } },
  ]
  for (const options of wrong)
    assert.throws(() => computeStrandMap({ schema, ...options }), RangeError)
  const map = computeStrandMap({ schema, indexCapacity: 4, heapCapacity: 256 })
  assert.throws(() => initStrandHeader(new SharedArrayBuffer(4096), map), RangeError)
})
