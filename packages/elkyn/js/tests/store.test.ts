import assert from 'node:assert/strict'
import fs, {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, mock, test } from 'node:test'

import { BadValue, Closed, ElkynError, Offline } from '../src/errors.ts'
import { ElkynStore } from '../src/index.ts'
import type { Json } from '../src/values.ts'
import { FakeStreams, put } from './fakeStreams.ts'

const folder = mkdtempSync(join(tmpdir(), 'elkyn-js-'))
after(() => rmSync(folder, { recursive: true, force: true }))
let made = 0
const fresh = () => join(folder, String((made += 1)))

test('a store in memory sets, gets, updates, pushes and deletes', async () => {
  const store = new ElkynStore({ mode: 'memory' })
  await store.set('/users/123', { name: 'Alice', age: 30 })
  await store.update('/users', { '123/age': 31, 'bob/name': 'Bob' })
  const { key, done } = store.push('/log', 'hello')
  await done
  assert.deepEqual(store.get('/users'), { 123: { name: 'Alice', age: 31 }, bob: { name: 'Bob' } })
  assert.deepEqual(store.get('/log'), { [key]: 'hello' })
  await store.delete('/users')
  assert.equal(store.get('/users'), null)
})

test('a write is visible and stored when set returns, without waiting for its promise', () => {
  const path = fresh()
  const store = new ElkynStore({ mode: 'standalone', path })
  void store.set('/a', 1)
  assert.equal(store.get('/a'), 1)
  assert.match(readFileSync(join(path, 'log.ndjson'), 'utf8'), /"\/a",1/)
  return store.close()
})

test('stored values are there when the store is opened again', async () => {
  const path = fresh()
  const first = new ElkynStore({ mode: 'standalone', path })
  await first.set('/list', ['x', { y: 1 }])
  await first.update('/list', { 0: null, '1/z': true })
  const shown = first.get('/')
  await first.close()
  const second = new ElkynStore({ mode: 'standalone', path })
  assert.deepEqual(second.get('/'), shown)
  await second.close()
})

test('a log cut anywhere in its last write opens with every write before it', async () => {
  const path = fresh()
  const store = new ElkynStore({ mode: 'standalone', path, sync: false })
  await store.set('/a', 'kept é')
  const file = join(path, 'log.ndjson')
  const whole = statSync(file).size
  await store.set('/b', 'torn')
  await store.close()
  const bytes = readFileSync(file)
  for (let size = whole; size < bytes.length; size += 1) {
    writeFileSync(file, bytes)
    truncateSync(file, size)
    const opened = new ElkynStore({ mode: 'standalone', path, sync: false })
    assert.deepEqual(opened.get('/'), { a: 'kept é' })
    await opened.set('/c', size)
    await opened.close()
    const again = new ElkynStore({ mode: 'standalone', path, sync: false })
    assert.deepEqual(again.get('/'), { a: 'kept é', c: size })
    await again.close()
  }
})

test('damage before the end of a log is refused, with the line', async () => {
  const path = fresh()
  const store = new ElkynStore({ mode: 'standalone', path })
  await store.set('/a', 'one')
  await store.set('/b', 'two')
  await store.close()
  const file = join(path, 'log.ndjson')
  const text = readFileSync(file, 'utf8')
  writeFileSync(file, text.replace('one', 'two'))
  assert.throws(() => new ElkynStore({ mode: 'standalone', path }), /line 2/)
  writeFileSync(file, text)
  await new ElkynStore({ mode: 'standalone', path }).close()
})

test('a file of another kind is refused and left alone', async () => {
  const path = fresh()
  const store = new ElkynStore({ mode: 'standalone', path })
  await store.close()
  const file = join(path, 'log.ndjson')
  writeFileSync(file, 'something else\n')
  assert.throws(() => new ElkynStore({ mode: 'standalone', path }), /not a log/)
  assert.equal(readFileSync(file, 'utf8'), 'something else\n')
})

test('one store at a time has a folder, and a dead owner does not keep it', async () => {
  const path = fresh()
  const store = new ElkynStore({ mode: 'standalone', path })
  assert.throws(() => new ElkynStore({ mode: 'standalone', path }), /is open in process/)
  await store.close()
  for (const dead of ['4194000', '4194000 x/1', `${process.pid} another-boot/1`]) {
    writeFileSync(join(path, 'lock'), dead)
    await new ElkynStore({ mode: 'standalone', path }).close()
  }
  writeFileSync(join(path, 'lock'), `${process.pid}`)
  assert.throws(() => new ElkynStore({ mode: 'standalone', path }), /remove its file/)
})

test('a write that does not fit on the disk is refused, and those after it are stored', async () => {
  const path = fresh()
  const store = new ElkynStore({ mode: 'standalone', path })
  await store.set('/a', 1)
  const full = mock.method(fs, 'writeSync', (handle: number, bytes: Buffer) => {
    full.mock.restore()
    fs.writeSync(handle, bytes, 0, 9)
    throw new Error('ENOSPC: no space left on device')
  })
  const received: Json[] = []
  store.on('/b', 'value', (value) => received.push(value))
  await assert.rejects(store.set('/b', 2), /no space left/)
  assert.deepEqual([store.get('/b'), received], [null, [null]])
  await store.set('/c', 3)
  await store.close()
  const again = new ElkynStore({ mode: 'standalone', path })
  assert.deepEqual(again.get('/'), { a: 1, c: 3 })
  await again.close()
})

test('a log of large values is shortened before it has many entries', async () => {
  const path = fresh()
  const store = new ElkynStore({ mode: 'standalone', path, sync: false })
  for (let step = 0; step < 60; step += 1) await store.set('/a', String(step).repeat(500_000))
  await store.close()
  assert.ok(statSync(join(path, 'log.ndjson')).size < 12_000_000)
  const again = new ElkynStore({ mode: 'standalone', path })
  assert.equal(again.get('/a'), '59'.repeat(500_000))
  await again.close()
})

test('a listener that writes causes no duplicate or misordered events', async () => {
  const store = new ElkynStore({ mode: 'memory' })
  const [added, counts]: [(string | null)[], Json[]] = [[], []]
  store.on('/r/a', 'value', (value) => value === 1 && void store.set('/r/b', 2))
  store.on('/r', 'child_added', (_value, key) => added.push(key))
  store.on('/r', 'value', (value) => counts.push(value))
  await store.set('/r/a', 1)
  assert.deepEqual(added, ['a', 'b'])
  assert.deepEqual(counts, [null, { a: 1, b: 2 }])
})

test('the error of a listener is reported by the platform, and others still get events', async () => {
  const store = new ElkynStore({ mode: 'memory' })
  const received: Json[] = []
  const reports: (() => void)[] = []
  const platform = mock.method(globalThis, 'queueMicrotask', (task: () => void) =>
    reports.push(task),
  )
  store.on('/a', 'value', (value) => {
    if (value === 1) throw new Error('mine')
  })
  store.on('/a', 'value', (value) => received.push(value))
  await store.set('/a', 1)
  assert.deepEqual(received, [null, 1])
  platform.mock.restore()
  assert.throws(() => reports[0]?.(), /value listener of \/a failed/)
})

test('five thousand children are added in any order of keys', async () => {
  const store = new ElkynStore({ mode: 'memory' })
  const keys = Array.from({ length: 5000 }, (_, n) => `k${(n * 2711) % 5000}`)
  for (const key of keys) await store.set(`/r/${key}`, 1)
  assert.deepEqual(Object.keys(store.get('/r') as object), keys.sort())
})

test('a long log is shortened and says the same', async () => {
  const path = fresh()
  const store = new ElkynStore({ mode: 'standalone', path, sync: false })
  for (let step = 0; step < 9000; step += 1) await store.set(`/k${step % 10}`, step)
  const shown = store.get('/')
  await store.close()
  const lines = readFileSync(join(path, 'log.ndjson'), 'utf8').split('\n').length
  assert.ok(lines < 4200, `${lines} lines`)
  const opened = new ElkynStore({ mode: 'standalone', path })
  assert.deepEqual(opened.get('/'), shown)
  await opened.close()
})

test('listeners get the current value, then every change, and child events in order', async () => {
  const store = new ElkynStore({ mode: 'memory' })
  await store.set('/r', { a: 1, b: 2 })
  const received: [string, Json, string | null, string | null][] = []
  for (const type of ['value', 'child_added', 'child_changed', 'child_removed'] as const) {
    store.on('/r', type, (value, key, previous) => received.push([type, value, key, previous]))
  }
  await store.update('/r', { a: null, b: 3, c: 4 })
  await store.set('/other', 1)
  await store.set('/r/b', 3)
  assert.deepEqual(received, [
    ['value', { a: 1, b: 2 }, 'r', null],
    ['child_added', 1, 'a', null],
    ['child_added', 2, 'b', 'a'],
    ['value', { b: 3, c: 4 }, 'r', null],
    ['child_added', 4, 'c', 'b'],
    ['child_changed', 3, 'b', null],
    ['child_removed', 1, 'a', null],
  ])
})

test('a stopped listener gets no more events, also when another stops it', async () => {
  const store = new ElkynStore({ mode: 'memory' })
  const received: Json[] = []
  const stops: (() => void)[] = []
  store.on('/a', 'value', (value) => value === 1 && stops[0]?.())
  stops.push(store.on('/a', 'value', (value) => received.push(value)))
  await store.set('/a', 1)
  await store.set('/a', 2)
  assert.deepEqual(received, [null])
})

test('bad values and modes are refused and change nothing', async () => {
  const store = new ElkynStore({ mode: 'memory' })
  await assert.rejects(store.set('/a', { 'x/y': 1 }), BadValue)
  await assert.rejects(store.update('/a', { b: 1, 'b/c': 2 }), BadValue)
  assert.equal(store.get('/'), null)
  assert.throws(() => new ElkynStore({ mode: 'other' as 'memory' }), ElkynError)
  assert.throws(() => new ElkynStore({ mode: 'replica' }), /needs the url/)
})

test('a closed store says so', async () => {
  const store = new ElkynStore({ mode: 'memory' })
  await store.close()
  await store.close()
  assert.throws(() => store.get('/'), Closed)
  await assert.rejects(store.set('/a', 1), Closed)
  assert.throws(() => store.on('/', 'value', () => undefined), Closed)
})

test('what is appended behind the store shows when it is opened', async () => {
  const path = fresh()
  const store = new ElkynStore({ mode: 'standalone', path })
  await store.set('/a', 1)
  await store.close()
  appendFileSync(join(path, 'log.ndjson'), 'half a li')
  const opened = new ElkynStore({ mode: 'standalone', path })
  assert.equal(opened.get('/a'), 1)
  await opened.close()
})

test('a replica without its first state refuses to be read', async () => {
  const path = fresh()
  const { open: streams, opened } = new FakeStreams()
  const options = {
    mode: 'replica',
    url: 'http://127.0.0.1:9',
    paths: ['/a', '/b'],
    path,
    streams,
  } as const
  const first = new ElkynStore(options)
  const values: Json[] = []
  first.on('/a', 'value', (value) => values.push(value))
  assert.throws(() => first.get('/a'), Offline)
  await new Promise((resolve) => setImmediate(resolve))
  opened[0]?.event(put('/', null, '3'))
  assert.throws(() => first.get('/a'), /await store.ready/)
  assert.deepEqual(values, [])
  opened[1]?.event(put('/', 7, '3'))
  await first.ready
  assert.equal(first.get('/b'), 7)
  assert.equal(first.get('/a'), null)
  assert.deepEqual(values, [null])
  await first.close()
  const second = new ElkynStore(options) // it has been followed before: read without the server
  assert.equal(second.get('/b'), 7)
  await second.close()
  const third = new ElkynStore({ ...options, path: fresh() })
  await third.close()
  await assert.rejects(third.ready, Closed)
})
