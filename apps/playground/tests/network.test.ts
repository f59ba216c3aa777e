import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  circle,
  isLocalOnly,
  roundTrip,
  shortName,
  summary,
  type NetworkNode,
} from '../lib/network'

const node = (name: string, state: string): NetworkNode => ({
  id: name,
  name,
  admin: false,
  state,
  since: 0,
  addresses: [],
  zone: null,
  version: null,
  rttSeconds: null,
  cannot: [],
})

test('nodes are on a circle, the first at the top, with labels outside of it', () => {
  const places = circle(5, 100)
  assert.ok(places.every(({ x, y }) => Math.abs(Math.hypot(x, y) - 100) < 1e-9))
  assert.ok(places.every(({ labelX, labelY }) => Math.hypot(labelX, labelY) > 100))
  assert.ok(places[0] && Math.abs(places[0].x) < 1e-9 && places[0].y === -100)
  assert.deepEqual(
    places.map(({ anchor }) => anchor),
    ['middle', 'start', 'start', 'end', 'end'],
  )
  assert.deepEqual(circle(0, 100), [])
})

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

test('a long name is cut where the drawing has no room', () => {
  assert.equal(shortName('oslo', 14), 'oslo')
  assert.equal(shortName('a-very-long-name-of-a-node', 14), 'a-very-long-n…')
})

test('the summary says how many answer', () => {
  assert.equal(summary([node('a', 'alive')]), 'This node is the only one so far.')
  assert.equal(summary([node('a', 'alive'), node('b', 'dead')]), '1 of 2 nodes answer.')
  assert.equal(summary([node('a', 'alive'), node('b', 'alive')]), 'All 2 nodes answer.')
})
