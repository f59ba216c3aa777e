import assert from 'node:assert/strict'
import { test } from 'node:test'

import { bySlowness, byZone, circle, shortName } from '../lib/topology'
import { node } from './nodes'

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

test('a long name is cut where the drawing has no room', () => {
  assert.equal(shortName('oslo', 14), 'oslo')
  assert.equal(shortName('a-very-long-name-of-a-node', 14), 'a-very-long-n…')
})

test('nodes of a zone are neighbours in the drawing, those of this one first', () => {
  const nodes = [
    node('oslo', 'alive', { zone: 'north' }),
    node('a', 'alive', { zone: 'south' }),
    node('b', 'alive', { zone: 'north' }),
    node('c', 'alive'),
    node('d', 'alive', { zone: 'south' }),
  ]
  const names = byZone(nodes, 9).map(({ name }) => name)
  assert.deepEqual(names, ['oslo', 'b', 'c', 'a', 'd'])
  assert.equal(byZone(nodes, 3).length, 3)
  assert.deepEqual(byZone([], 3), [])
})

test('the slowest connection is first, and one that was not measured last', () => {
  const link = (rttSeconds: number | null) => ({
    nodes: ['a', 'b'] as [string, string],
    rttSeconds,
    relay: null,
  })
  const sorted = bySlowness([link(0.001), link(null), link(0.2)])
  assert.deepEqual(
    sorted.map(({ rttSeconds }) => rttSeconds),
    [0.2, 0.001, null],
  )
})
