import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Refused } from '../src/errors.ts'
import { multicast } from '../src/multicast.ts'
import type { StreamEvent } from '../src/stream.ts'
import { FakeStreams, put, recorder, REQUEST, settled } from './fakeStreams.ts'

test('listeners to one path share a stream, and a later one gets the current value', async () => {
  const fake = new FakeStreams()
  const open = multicast(fake.open)
  const [first, second]: [StreamEvent[], StreamEvent[]] = [[], []]
  open(REQUEST, recorder(first))
  await settled()
  fake.opened[0]?.event(put('/', { x: 1 }, '4'))
  fake.opened[0]?.event({ type: 'patch', path: '/', data: { y: 2, x: null }, id: '5' })
  open(REQUEST, recorder(second))
  assert.deepEqual(second, [], 'no event before the stream is returned')
  await settled()
  fake.opened[0]?.event(put('/z', 3, '6'))
  assert.equal(fake.opened.length, 1)
  assert.equal(first.length, 3)
  assert.deepEqual(second, [put('/', { y: 2 }), put('/z', 3, '6')])
})

test('an event between the call and the first event is part of the current value', async () => {
  const fake = new FakeStreams()
  const open = multicast(fake.open)
  open(REQUEST, recorder([]))
  fake.opened[0]?.event(put('/', { x: 1 }))
  const received: StreamEvent[] = []
  open(REQUEST, recorder(received))
  fake.opened[0]?.event({ type: 'patch', path: '/', data: { y: 2 }, id: null })
  await settled()
  assert.deepEqual(received, [put('/', { x: 1, y: 2 })])
})

test('other requests have streams of their own', () => {
  const fake = new FakeStreams()
  const open = multicast(fake.open)
  open(REQUEST, recorder([]))
  open({ ...REQUEST, path: ['b'] }, recorder([]))
  open({ ...REQUEST, namespace: 'other' }, recorder([]))
  open({ ...REQUEST, token: 'other' }, recorder([]))
  open({ ...REQUEST, lastEventId: '7' }, recorder([])) // resumes: has no whole value for others
  assert.equal(fake.opened.length, 5)
})

test('the stream closes with its last listener, and a new listener opens another', async () => {
  const fake = new FakeStreams()
  const open = multicast(fake.open)
  const [first, second] = [open(REQUEST, recorder([])), open(REQUEST, recorder([]))]
  first.close()
  first.close()
  await settled()
  assert.equal(fake.closed, 0)
  second.close()
  assert.equal(fake.closed, 1)
  open(REQUEST, recorder([]))
  assert.equal(fake.opened.length, 2)
})

test('all listeners learn of the connection and of a refusal, and may retry', async () => {
  const fake = new FakeStreams()
  const open = multicast(fake.open)
  const received: unknown[] = []
  const listener = (name: string) => ({
    event: () => undefined,
    connection: ({ state }: { state: string }) => received.push([name, state]),
    refused: ({ status }: Refused) => received.push([name, status]),
  })
  open(REQUEST, listener('a'))
  await settled()
  fake.opened[0]?.connection({ state: 'offline', retryAtMs: 1 })
  open(REQUEST, listener('b')).retry()
  await settled()
  open(REQUEST, listener('c'))
  fake.opened[0]?.refused(new Refused(401, 'no'))
  assert.equal(fake.opened[0]?.retries, 1)
  assert.deepEqual(received, [
    ['a', 'offline'],
    ['b', 'offline'],
    ['a', 401],
    ['b', 401],
    ['c', 401],
  ])
  open(REQUEST, recorder([]))
  assert.equal(fake.opened.length, 2)
})
