import assert from 'node:assert/strict'
import { afterEach, mock, test } from 'node:test'

import { Refused } from '../src/errors.ts'
import { LiveValues } from '../src/liveValues.ts'
import { FakeStreams, put, settled } from './fakeStreams.ts'

const URL = 'http://node:8600/base/'

afterEach(() => mock.timers.reset())

async function opened(token?: () => string) {
  const fake = new FakeStreams()
  const live = new LiveValues(URL, { token, namespace: 'sys', streams: fake.open })
  let changes = 0
  const stop = live.subscribe('/jobs', () => (changes += 1))
  await settled()
  return { fake, live, stop, changes: () => changes }
}

test('a value is unknown until the server has sent it, and follows its events', async () => {
  const { fake, live, changes } = await opened()
  assert.deepEqual(fake.opened[0]?.request, {
    base: 'http://node:8600/base',
    path: ['jobs'],
    namespace: 'sys',
    token: '',
    lastEventId: null,
  })
  const start = { value: null, isKnown: false, connection: { state: 'connecting' } }
  assert.deepEqual(live.get('/jobs'), start)
  assert.equal(live.get('/other'), live.get('/another'), 'the same object for a hook')
  fake.opened[0]?.connection({ state: 'online' })
  fake.opened[0]?.event(put('/', { a: { rows: 1 }, b: { rows: 2 } }))
  const before = live.get('jobs/')
  assert.deepEqual(before, {
    value: { a: { rows: 1 }, b: { rows: 2 } },
    isKnown: true,
    connection: { state: 'online' },
  })
  assert.equal(live.get('/jobs'), before)
  assert.equal(changes(), 2)
})

test('an event changes only the objects above its place', async () => {
  const { fake, live } = await opened()
  fake.opened[0]?.event(put('/', { a: { rows: 1 }, b: { rows: 2 }, list: [1, 2] }))
  const before = live.get('/jobs').value as Record<string, unknown>
  fake.opened[0]?.event({
    type: 'patch',
    path: '/a',
    data: { rows: 9, 'task/state': 'x' },
    id: null,
  })
  const after = live.get('/jobs').value as Record<string, unknown>
  assert.deepEqual(after, { a: { rows: 9, task: { state: 'x' } }, b: { rows: 2 }, list: [1, 2] })
  assert.deepEqual(before.a, { rows: 1 })
  assert.equal(after.b, before.b)
  assert.equal(after.list, before.list)
})

test('subscribers to a path share its stream; the last state stays readable', async () => {
  const { fake, live, stop } = await opened()
  const stopSecond = live.subscribe('/jobs', () => undefined)
  fake.opened[0]?.connection({ state: 'online' })
  fake.opened[0]?.event(put('/', 1))
  stop()
  stop()
  assert.equal(fake.closed, 0)
  stopSecond()
  assert.equal(fake.closed, 1)
  assert.deepEqual(live.get('/jobs'), {
    value: 1,
    isKnown: true,
    connection: { state: 'connecting' },
  })
  live.subscribe('/jobs', () => undefined)
  await settled()
  assert.equal(fake.opened.length, 2)
})

test('a lost connection keeps the value and can be retried', async () => {
  const { fake, live } = await opened()
  fake.opened[0]?.event(put('/', 1))
  fake.opened[0]?.connection({ state: 'offline', retryAtMs: 5 })
  const { value, connection } = live.get('/jobs')
  assert.deepEqual([value, connection], [1, { state: 'offline', retryAtMs: 5 }])
  live.retry()
  assert.equal(fake.opened[0]?.retries, 1)
})

test('a refused path is tried again: at once on retry, else after a while', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  const { fake, live, stop } = await opened()
  fake.opened[0]?.refused(new Refused(401, 'who are you'))
  await settled()
  const { connection } = live.get('/jobs')
  assert.ok(connection.state === 'refused')
  assert.deepEqual([connection.error.status, connection.retryAtMs], [401, 10_000])
  live.retry()
  await settled()
  assert.equal(fake.opened.length, 2)
  fake.opened[1]?.refused(new Refused(401, 'who are you'))
  await settled()
  mock.timers.tick(10_000)
  await settled()
  assert.equal(fake.opened.length, 3)
  fake.opened[2]?.refused(new Refused(401, 'who are you'))
  await settled()
  stop()
  mock.timers.tick(60_000)
  await settled()
  assert.equal(fake.opened.length, 3, 'there are no subscribers')
})

test('a new token opens the stream again', async () => {
  let token = 'first'
  const { fake, live } = await opened(() => token)
  await live.renewToken()
  assert.equal(fake.opened.length, 1)
  token = 'second'
  await live.renewToken()
  await settled()
  assert.deepEqual(
    fake.opened.map(({ request, isClosed }) => [request.token, isClosed]),
    [
      ['first', true],
      ['second', false],
    ],
  )
})
