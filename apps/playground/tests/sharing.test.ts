import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  accessOf,
  byNeed,
  copyHealth,
  copySummary,
  handOverActions,
  handOverOf,
  heldHere,
  lackersOf,
  readersOf,
  shortageOf,
  requestOf,
  sharingOf,
  writerOf,
  type CopyState,
  type SharedDataset,
} from '../lib/sharing'

const FULL: CopyState = {
  objects: 12,
  held: 12,
  places: 3,
  underReplicated: 0,
  unavailable: 0,
  missingHere: 0,
  lacking: {},
}

const dataset = (rest: Partial<SharedDataset> = {}): SharedDataset => ({
  dataset: 'id',
  name: 'trips',
  encrypted: false,
  mayShare: true,
  writer: null,
  restricted: false,
  nodes: ['rome'],
  readOnly: false,
  copies: 2,
  pins: [],
  only: [],
  state: FULL,
  writerRevoked: false,
  handOver: null,
  handOverRefusal: null,
  forkOf: null,
  ...rest,
})

test('the worst of what is wrong with copies is said', () => {
  assert.deepEqual(copyHealth(dataset()), { tone: 'good', text: '2 copies of 12 shards' })
  const few = dataset({ state: { ...FULL, underReplicated: 3 } })
  assert.deepEqual(copyHealth(few), { tone: 'warn', text: '3 of 12 shards have too few copies' })
  const gone = dataset({ state: { ...FULL, underReplicated: 12, unavailable: 12 } })
  assert.deepEqual(copyHealth(gone), {
    tone: 'bad',
    text: 'all 12 shards are on no node that answers',
  })
  const one = dataset({ state: { ...FULL, objects: 1, underReplicated: 1 } })
  assert.equal(copyHealth(one).text, 'its only shard has too few copies')
  assert.equal(copyHealth(dataset({ state: null })).text, 'not known yet')
  assert.equal(copyHealth(dataset({ state: null, restricted: true })).text, 'no copies')
})

test('no repair helps if fewer nodes may hold a table than copies are wanted', () => {
  const few = { ...FULL, underReplicated: 12 }
  assert.equal(shortageOf(dataset({ state: few })), null)
  const text = shortageOf(dataset({ copies: 4, state: few }))
  assert.equal(text, '3 nodes may hold it and have room; 4 wanted')
  assert.equal(shortageOf(dataset({ copies: 4 })), null)
})

test('those that lack copies are named, this node first', () => {
  const state = { ...FULL, missingHere: 2, lacking: { rome: 3, bern: 1, oslo: 0 } }
  assert.deepEqual(lackersOf(dataset({ state })), [
    'this node lacks 2',
    'bern lacks 1',
    'rome lacks 3',
  ])
  assert.deepEqual(lackersOf(dataset({ state: null })), [])
})

test('it is said how much of a table is on this node', () => {
  assert.equal(heldHere(dataset()), 'all')
  assert.equal(heldHere(dataset({ state: { ...FULL, held: 0 } })), 'none')
  assert.equal(heldHere(dataset({ state: { ...FULL, held: 3 } })), '3 of 12')
  assert.equal(heldHere(dataset({ state: null, writer: 'rome' })), 'none')
})

test('it is said who reads a table, and what they may do', () => {
  assert.equal(readersOf(dataset({ nodes: null })), 'all nodes')
  assert.equal(readersOf(dataset({ nodes: ['rome', 'bern'] })), 'rome, bern')
  assert.equal(readersOf(dataset({ writer: 'rome' })), 'shared with this node')
  assert.equal(accessOf(dataset()), 'they may change rows')
  assert.equal(accessOf(dataset({ readOnly: true })), 'they read')
  assert.equal(accessOf(dataset({ writer: 'rome', readOnly: true })), 'this node reads')
  assert.equal(accessOf(dataset({ restricted: true })), 'what a policy shows')
})

test('tables that lack copies come first, and are counted', () => {
  const few = dataset({ name: 'z', state: { ...FULL, underReplicated: 1 } })
  const gone = dataset({ name: 'y', state: { ...FULL, unavailable: 1 } })
  const all = [dataset({ name: 'b' }), few, dataset({ name: 'a' }), gone]
  assert.deepEqual(
    byNeed(all).map(({ name }) => name),
    ['y', 'z', 'a', 'b'],
  )
  assert.deepEqual(copySummary(all), { tone: 'bad', text: '1 incomplete' })
  assert.equal(copySummary([few]).text, '1 with too few copies')
  assert.equal(copySummary([dataset()]).text, 'All have their copies')
  assert.equal(copySummary([]).text, 'None is shared')
})

test('what is shared with all nodes is read only', () => {
  const sharing = { ...sharingOf(dataset()), withAll: true }
  assert.deepEqual(requestOf(sharing), {
    nodes: null,
    copies: 2,
    pins: [],
    only: [],
    readOnly: true,
  })
  assert.deepEqual(requestOf(sharingOf(dataset())), {
    nodes: ['rome'],
    copies: 2,
    pins: [],
    only: [],
    readOnly: false,
  })
  assert.equal(sharingOf(null).withAll, false)
})

test('how far a hand-over is, or why it was refused, is said', () => {
  assert.equal(handOverOf(dataset()), null)
  const offered = dataset({ handOver: { state: 'offered', node: 'rome' } })
  assert.match(handOverOf(offered) ?? '', /Offered to rome/)
  const refused = dataset({ handOverRefusal: 'node rome: no room' })
  assert.equal(handOverOf(refused), 'It was not handed over: node rome: no room')
})

test('a hand-over is offered by the writer, accepted by admins of others, and undone until it is signed', () => {
  const none = { offer: false, accept: false, undo: false }
  assert.deepEqual(handOverActions(dataset(), false), { ...none, offer: true })
  assert.deepEqual(handOverActions(dataset({ mayShare: false }), true), none)
  const theirs = dataset({ writer: 'oslo', mayShare: false })
  assert.deepEqual(handOverActions(theirs, false), none)
  assert.deepEqual(handOverActions(theirs, true), { ...none, accept: true })
  assert.deepEqual(handOverActions({ ...theirs, writerRevoked: true }, true), none)
  assert.deepEqual(handOverActions({ ...theirs, restricted: true }, true), none)
  for (const [state, undo] of [
    ['offered', true],
    ['stopped', true],
    ['signed', false],
  ] as const) {
    const found = handOverActions(dataset({ handOver: { state, node: 'rome' } }), false)
    assert.deepEqual(found, { ...none, undo }, state)
  }
})

test('a writer that was removed is named by its id', () => {
  assert.equal(writerOf(dataset()), 'this node')
  assert.equal(writerOf(dataset({ writer: 'oslo' })), 'oslo')
  assert.equal(writerOf(dataset({ writer: 'a'.repeat(64), writerRevoked: true })), 'a'.repeat(16))
})
