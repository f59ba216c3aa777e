import assert from 'node:assert/strict'
import { afterEach, beforeEach, mock, test } from 'node:test'

import { LiveHub } from '../lib/live/hub'
import type { FromHub } from '../lib/live/protocol'
import { parseEvent, reconnectDelay } from '../lib/live/stream'
import { applyEvent, valueAt } from '../lib/live/tree'

test('a put replaces the value at its path and leaves the rest the same object', () => {
  const before = { a: { x: 1 }, b: { y: 2 } }
  const after = applyEvent(before, { type: 'put', path: '/a/x', data: 5 })
  assert.deepEqual(after, { a: { x: 5 }, b: { y: 2 } })
  assert.equal((after as typeof before).b, before.b)
  assert.deepEqual(before, { a: { x: 1 }, b: { y: 2 } })
})

test('a put of null removes the key, and parents that are empty then', () => {
  const before = { jobs: { j1: { state: 'done' } }, kept: 1 }
  assert.deepEqual(applyEvent(before, { type: 'put', path: '/jobs/j1', data: null }), { kept: 1 })
  assert.equal(applyEvent({ only: 1 }, { type: 'put', path: '/only', data: null }), null)
})

test('a put at the root replaces everything', () => {
  assert.deepEqual(applyEvent({ a: 1 }, { type: 'put', path: '/', data: { b: 2 } }), { b: 2 })
  assert.equal(applyEvent({ a: 1 }, { type: 'put', path: '/', data: null }), null)
})

test('a patch merges children, also by deeper paths, and removes by null', () => {
  const before = { j1: { state: 'running', progress: { rows: 1, phase: 'scan' } } }
  const event = {
    type: 'patch' as const,
    path: '/j1',
    data: { state: 'done', 'progress/rows': 9, 'progress/phase': null },
  }
  assert.deepEqual(applyEvent(before, event), { j1: { state: 'done', progress: { rows: 9 } } })
})

test('events below a value that is no tree make one', () => {
  assert.deepEqual(applyEvent(null, { type: 'put', path: '/a/b', data: 1 }), { a: { b: 1 } })
  assert.deepEqual(applyEvent({ a: 3 }, { type: 'put', path: '/a/b', data: 1 }), { a: { b: 1 } })
})

test('values are found by path', () => {
  assert.equal(valueAt({ a: { b: 0 } }, '/a/b'), 0)
  assert.equal(valueAt({ a: 1 }, '/a/b/c'), null)
})

test('only well-formed puts and patches are events', () => {
  assert.deepEqual(parseEvent('put', '{"path":"/","data":null}'), {
    type: 'put',
    path: '/',
    data: null,
  })
  assert.equal(parseEvent('keep-alive', 'null'), null)
  assert.equal(parseEvent('put', 'null'), null)
  assert.equal(parseEvent('patch', '{broken'), null)
})

test('reconnecting slows down and stays bounded', () => {
  assert.deepEqual([1, 2, 3, 9, 99].map(reconnectDelay), [1000, 2000, 4000, 10000, 10000])
})

class FakeEventSource extends EventTarget {
  static opened: FakeEventSource[] = []
  closed = false
  onopen: (() => void) | null = null
  onerror: (() => void) | null = null

  constructor(readonly url: string) {
    super()
    FakeEventSource.opened.push(this)
  }

  close(): void {
    this.closed = true
  }

  put(path: string, data: unknown): void {
    this.dispatchEvent(new MessageEvent('put', { data: JSON.stringify({ path, data }) }))
  }
}

beforeEach(() => {
  FakeEventSource.opened = []
  mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  Object.assign(globalThis, { EventSource: FakeEventSource })
  mock.method(globalThis, 'fetch', async () => new Response('', { status: 401 }))
})

afterEach(() => {
  mock.reset()
  mock.timers.reset()
})

function watcher() {
  const heard: FromHub[] = []
  return { heard, hear: (message: FromHub) => void heard.push(message) }
}

const settled = async () => {
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve()
}

test('watchers of one path share one stream, and a late one starts from the current value', () => {
  const hub = new LiveHub()
  const [first, second] = [watcher(), watcher()]
  hub.handle({ kind: 'watch', path: '/jobs' }, first.hear)
  FakeEventSource.opened[0]!.put('/', { j1: 1 })
  hub.handle({ kind: 'watch', path: '/jobs' }, second.hear)
  assert.equal(FakeEventSource.opened.length, 1)
  assert.deepEqual(second.heard.at(-1), {
    kind: 'event',
    path: '/jobs',
    event: { type: 'put', path: '/', data: { j1: 1 } },
  })
})

test('the stream closes when the last watcher leaves', () => {
  const hub = new LiveHub()
  const [first, second] = [watcher(), watcher()]
  hub.handle({ kind: 'watch', path: '/jobs' }, first.hear)
  hub.handle({ kind: 'watch', path: '/jobs' }, second.hear)
  hub.handle({ kind: 'unwatch', path: '/jobs' }, first.hear)
  assert.equal(FakeEventSource.opened[0]!.closed, false)
  hub.handle({ kind: 'leave' }, second.hear)
  assert.equal(FakeEventSource.opened[0]!.closed, true)
})

test('a lost stream says why and when it tries again, then recovers', async () => {
  const hub = new LiveHub()
  const { heard, hear } = watcher()
  hub.handle({ kind: 'watch', path: '/jobs' }, hear)
  FakeEventSource.opened[0]!.onerror!()
  await settled()
  const lost = heard.at(-1)
  assert.ok(lost?.kind === 'status' && lost.status.state === 'lost')
  assert.equal(lost.status.reason, 'unauthenticated')
  mock.timers.tick(1000)
  FakeEventSource.opened[1]!.put('/', null)
  assert.ok(heard.some((message) => message.kind === 'status' && message.status.state === 'live'))
})

test('silence for longer than the keep-alives allow counts as loss', async () => {
  const hub = new LiveHub()
  const { heard, hear } = watcher()
  hub.handle({ kind: 'watch', path: '/jobs' }, hear)
  FakeEventSource.opened[0]!.put('/', null)
  mock.timers.tick(61_000)
  await settled()
  assert.equal(FakeEventSource.opened[0]!.closed, true)
  const last = heard.at(-1)
  assert.ok(last?.kind === 'status' && last.status.state === 'lost')
})
