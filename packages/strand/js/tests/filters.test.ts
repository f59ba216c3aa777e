import assert from 'node:assert/strict'
import { test } from 'node:test'

import { between, eq, forEachSet, intersect, oneOf, popcount, type FieldSpec } from '../src/index.js'
import { openRing } from './rings.js'

const FIELDS: FieldSpec[] = [
  { name: 'at', type: 'i64', order: 'ascending' },
  { name: 'left', type: 'u16', order: 'descending' },
  { name: 'score', type: 'f64', nullable: true },
  { name: 'kind', type: 'utf8_ref' },
]

function filled() {
  const intern = ['low', 'high']
  const { writer, view } = openRing(FIELDS, { indexCapacity: 128, metadata: { intern } })
  writer.writeRecordBatch(
    Array.from({ length: 100 }, (_, at) => [
      BigInt(at * 10),
      1000 - at,
      at % 10 === 0 ? null : at / 4,
      at % 3 === 0 ? 'high' : 'low',
    ]),
  )
  return view
}

function seqs(bitset: Parameters<typeof forEachSet>[0]): number[] {
  const found: number[] = []
  forEachSet(bitset, (seq) => found.push(seq))
  return found
}

test('predicates choose records, and nulls never match', () => {
  const view = filled()
  assert.deepEqual(seqs(view.getFilterBitset('score', between(2, 3))), [8, 9, 11, 12])
  assert.deepEqual(seqs(view.getFilterBitset('score', between(24, null))), [96, 97, 98, 99])
  assert.deepEqual(seqs(view.getFilterBitset('at', eq(50))), [5])
  assert.deepEqual(seqs(view.getFilterBitset('left', oneOf([1000n, 901]))), [0, 99])
  assert.equal(popcount(view.getFilterBitset('kind', eq('high'))), 34)
})

test('bitsets intersect, and agree with a plain loop', () => {
  const view = filled()
  const both = intersect(
    view.getFilterBitset('kind', eq('high')),
    view.getFilterBitset('score', between(5, 20)),
  )
  const wanted = Array.from({ length: 100 }, (_, at) => at).filter(
    (at) => at % 3 === 0 && at % 10 !== 0 && at >= 20 && at <= 80,
  )
  assert.deepEqual(seqs(both), wanted)
  assert.equal(popcount(both), wanted.length)
  assert.deepEqual(view.constrainedRanges(both, ['at', 'score']), {
    at: { min: 210n, max: 780n },
    score: { min: 5.25, max: 19.5 },
  })
})

test('ranges over no records are null, and only numbers have them', () => {
  const view = filled()
  const none = view.getFilterBitset('at', eq(1))
  assert.deepEqual(view.constrainedRanges(none), { at: null, left: null, score: null })
  assert.throws(() => view.constrainedRanges(none, ['kind']), TypeError)
})

test('windows of a bitset are what can be read', () => {
  const view = filled()
  view.acknowledgeRead(40)
  assert.deepEqual(seqs(view.getFilterBitset('left', between(955, 1000))), [40, 41, 42, 43, 44, 45])
  assert.throws(() => view.getFilterBitset('left', eq(1), 0, 50), RangeError)
  const few = view.getFilterBitset('left', eq(950), 50, 60)
  assert.deepEqual(seqs(few), [50])
  assert.throws(() => intersect(few, view.getFilterBitset('left', eq(950))), RangeError)
})

test('findFirst bisects sorted fields, in both directions', () => {
  const view = filled()
  assert.equal(view.findFirst('at', 55), 6)
  assert.equal(view.findFirst('at', 60n), 6)
  assert.equal(view.findFirst('at', -1), 0)
  assert.equal(view.findFirst('at', 10_000), 100)
  assert.equal(view.findFirst('left', 950), 50)
  view.acknowledgeRead(70)
  assert.equal(view.findFirst('at', 55), 70)
  assert.throws(() => view.findFirst('score', 1), /not|no field that is declared/)
})
