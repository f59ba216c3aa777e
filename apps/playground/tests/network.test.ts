import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  byTrouble,
  handedOver,
  healed,
  isLocalOnly,
  listed,
  matches,
  RateMeter,
  roomOf,
  roundTrip,
  summary,
  textsOf,
  totalOf,
  verdict,
  wayOf,
  type HealReport,
} from '../lib/network'
import { connection, node, report } from './nodes'

test('a short round trip has a decimal, and one that was not measured is none', () => {
  assert.equal(roundTrip(0.00123), '1.2 ms')
  assert.equal(roundTrip(0.0456), '46 ms')
  assert.equal(roundTrip(null), null)
})

test('a node on a loopback address is reached from its own machine alone', () => {
  assert.ok(isLocalOnly(['127.0.0.1:8601', '[::1]:8601', 'localhost:8601']))
  assert.ok(isLocalOnly([]))
  assert.ok(!isLocalOnly(['127.0.0.1:8601', 'oslo.example.org:8601']))
})

test('the summary says how many answer', () => {
  assert.equal(summary([node('a', 'alive')]), 'This node is the only one so far.')
  assert.equal(summary([node('a', 'alive'), node('b', 'dead')]), '1 of 2 nodes answer.')
  assert.equal(summary([node('a', 'alive'), node('b', 'alive')]), 'All 2 nodes answer.')
})

test('this node is first, then those that need attention, then the others by name', () => {
  const nodes = [
    node('own', 'alive'),
    node('c', 'alive'),
    node('b', 'leaving'),
    node('a', 'left'),
    node('d', 'dead'),
  ]
  assert.deepEqual(
    byTrouble(nodes).map(({ name }) => name),
    ['own', 'd', 'b', 'a', 'c'],
  )
  assert.deepEqual(byTrouble([]), [])
})

test('a search finds nodes by any of their texts, and all of its words count', () => {
  const rome = node('rome', 'alive', { zone: 'south', ...connection(0, 0, 'oslo') })
  assert.ok(matches(textsOf(rome), ''))
  assert.ok(matches(textsOf(rome), ' South ROME'))
  assert.ok(matches(textsOf(rome), 'through oslo'))
  assert.ok(!matches(textsOf(rome), 'rome north'))
})

test('it is said whether a node is reached directly', () => {
  assert.equal(wayOf(node('a', 'alive', connection())), 'direct')
  assert.equal(wayOf(node('a', 'alive', connection(0, 0, 'oslo'))), 'through oslo')
  assert.equal(wayOf(node('a', 'dead')), 'not connected')
})

test('the room of nodes that do not answer does not count', () => {
  const room = { capacityBytes: 100, usedBytes: 10 }
  const nodes = [node('a', 'alive', room), node('b', 'dead', room), node('c', 'unknown')]
  assert.deepEqual(roomOf(nodes), { used: 10, capacity: 100 })
})

test('rates are of some seconds, even if reports come faster', () => {
  const meter = new RateMeter()
  const at = (time: number, sent: number) =>
    meter.next(report(time, [node('own', 'alive'), node('b', 'alive', connection(sent, 2 * sent))]))
  assert.equal(at(100, 0).size, 0)
  assert.equal(at(103, 3_000).size, 0)
  assert.deepEqual(at(105, 5_000).get('b'), { sent: 1_000, received: 2_000 })
  // Of 103 to 107, not of 100 to 107.
  assert.deepEqual(at(107, 11_000).get('b'), { sent: 2_000, received: 4_000 })
})

test('counters that began anew, and a clock that was set back, give no rate', () => {
  const meter = new RateMeter()
  const at = (time: number, sent: number) =>
    meter.next(report(time, [node('b', 'alive', connection(sent, sent))]))
  at(100, 9_000)
  assert.equal(at(110, 10).size, 0)
  assert.equal(at(50, 20).size, 0)
  assert.deepEqual(at(60, 30).get('b'), { sent: 1, received: 1 })
})

test('rates add up, and without any there is no total', () => {
  assert.equal(totalOf(new Map()), null)
  const rate = { sent: 1, received: 2 }
  assert.deepEqual(
    totalOf(
      new Map([
        ['a', rate],
        ['b', rate],
      ]),
    ),
    { sent: 2, received: 4 },
  )
})

test('the verdict of a check counts problems', () => {
  const finding = (ok: boolean) => ({ subject: 's', ok, found: 'f', remedy: '' })
  assert.equal(verdict([finding(true), finding(true)]), 'All 2 checks passed.')
  assert.equal(verdict([finding(true), finding(false)]), 'One problem was found.')
  assert.equal(verdict([finding(false), finding(false)]), '2 problems were found.')
})

test('a repair says what is left', () => {
  const done: HealReport = {
    datasets: 1,
    verified: 2,
    damaged: 0,
    objects: 3,
    underReplicated: 0,
    unavailable: 0,
    missing: 0,
    problems: [],
    done: true,
  }
  const read = '2 objects verified here, 0 of them damaged.'
  assert.equal(healed(done), `3 shards, each with all of its copies; ${read}`)
  assert.equal(healed({ ...done, objects: 0 }), `1 shared table; ${read}`)
  assert.equal(
    healed({ ...done, missing: 2, underReplicated: 1 }),
    `3 shards: 2 copies missing, 1 with too few, 0 without any; ${read}`,
  )
})

test('the progress of leaving says what is to be handed over', () => {
  const at = (objects: number, waiting: number, datasets: string[] = []) =>
    handedOver({ objects, waiting, datasets, left: false, done: false })
  assert.equal(at(0, 0), 'Nothing is to be handed over.')
  assert.equal(at(3, 2, ['trips']), '2 of 3 shards are still to be handed over, of trips.')
  assert.equal(at(3, 0), 'All of 3 shards are held by other nodes.')
})

test('a long list of names ends with how many more there are', () => {
  assert.equal(listed(['a', 'b'], 2), 'a, b')
  assert.equal(listed(['a', 'b', 'c', 'd'], 2), 'a, b and 2 more')
})
