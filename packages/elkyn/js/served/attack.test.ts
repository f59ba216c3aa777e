/** What users get wrong, and what is awkward, against a server: as `client.test.ts`. */

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ElkynClient } from '../src/client.ts'
import { BadValue, ElkynError, Refused } from '../src/errors.ts'
import { openStream } from '../src/stream.ts'
import type { Json, Value } from '../src/values.ts'

const url = process.env['ELKYN_URL'] ?? assert.fail('ELKYN_URL must be set')
const token = process.env['ELKYN_TOKEN'] ?? assert.fail('ELKYN_TOKEN must be set')
const client = new ElkynClient(url, { token })
let places = 0
const place = () => `/attack/${(places += 1)}`

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5))
}

for (const path of [
  'a.b',
  '/a$',
  '/a#b',
  '/[a]',
  '/\u0007',
  `/${'é'.repeat(385)}`,
  'a/'.repeat(33),
]) {
  test(`path ${JSON.stringify(path.slice(0, 12))} is refused before it is sent`, async () => {
    await assert.rejects(client.get(path), BadValue)
    await assert.rejects(client.set(path, 1), BadValue)
    assert.throws(() => client.on(path, 'value', () => undefined), BadValue)
  })
}

for (const [what, value] of [
  ['a date', new Date()],
  ['a map', new Map([['a', 1]])],
  ['a big integer', 10n],
  ['an infinite number', Infinity],
  ['a priority that is an object', { '.value': 1, '.priority': {} }],
  ['a server value that does not exist', { '.sv': 'random' }],
  ['a circle', circle()],
] as [string, unknown][]) {
  test(`${what} is refused before it is sent`, async () => {
    await assert.rejects(client.set(place(), value as Value), BadValue)
    assert.equal(client.pendingWrites, 0)
  })
}

test('an update with a place inside another is refused before it is sent', async () => {
  await assert.rejects(client.update(place(), { a: 1, 'a/b': 2 }), BadValue)
  await assert.rejects(
    client.update(place(), [1, 2] as unknown as { [key: string]: Value }),
    BadValue,
  )
})

test('an event that does not exist is refused', () => {
  const [type, listener] = ['child_moved' as 'value', () => undefined]
  assert.throws(() => client.on('/a', type, listener), ElkynError)
  assert.throws(() => client.on('/a', 'value', 'x' as unknown as () => void), ElkynError)
})

test('null deletes, as undefined and what is empty do', async () => {
  const at = place()
  const values: Value[] = [null, undefined, {}, [], { b: null }]
  for (const value of values) {
    await client.set(at, { a: 1 })
    await client.set(at, value)
    assert.equal(await client.get(at), null)
  }
  await client.set(at, { a: 1, b: { c: 2 } })
  await client.update(at, { a: null, 'b/c': null })
  assert.equal(await client.get(at), null)
})

test('arrays come back as arrays to reads and to listeners alike', async () => {
  const at = place()
  const received: Json[] = []
  const stop = client.on(at, 'value', (value) => received.push(value))
  await until(() => received.length === 1)
  for (const value of [['a', 'b'], ['a', null, 'c'], { 0: 'a', 9: 'b' }] as Json[]) {
    await client.set(at, value)
    assert.deepEqual(received.at(-1), value)
    assert.deepEqual(await client.get(at), value)
  }
  stop()
})

test('priorities reach the server, and listeners see plain values', async () => {
  for (const streams of [undefined, openStream]) {
    const own = new ElkynClient(url, { token, streams })
    const at = place()
    const received: Json[] = []
    own.on(at, 'value', (value) => received.push(value))
    await until(() => received.length === 1)
    await own.set(at, {
      a: { '.value': 1, '.priority': 2 },
      b: { '.priority': 'x', c: 3 },
      d: { '.value': 4, '.priority': 1 },
    })
    const plain = { a: 1, b: { c: 3 }, d: 4 }
    const other = new ElkynClient(url, { token, streams })
    other.on(at, 'value', (value) => received.push(value))
    await until(() => received.length === 3)
    assert.deepEqual(received.slice(1), [plain, plain])
    const first = { orderBy: '$priority', limitToFirst: 1 } as const
    assert.deepEqual(await own.query(at, first), { d: 4 })
    own.close()
    other.close()
  }
})

test('server values show at once, and the value of the server comes without a detour', async () => {
  const at = place()
  const received: number[] = []
  const stop = client.on(at, 'value', (value) => received.push(Number(value)))
  await until(() => received.length === 1)
  const add = { '.sv': { increment: 5 } }
  await Promise.all([client.set(at, add), client.set(at, add), client.set(at, add)])
  assert.deepEqual(received, [0, 5, 10, 15])
  stop()
})

test('queries of every kind', async () => {
  const at = place()
  await client.set(at, { a: { n: 3 }, b: { n: 1 }, c: { n: 2 }, d: { n: 'x' } })
  const keys = async (options: Parameters<ElkynClient['query']>[1]) =>
    Object.keys((await client.query(at, options)) as object).sort()
  assert.deepEqual(await keys({ orderBy: 'n', startAt: 2 }), ['a', 'c', 'd'])
  assert.deepEqual(await keys({ orderBy: 'n', startAt: 2, endAt: 3 }), ['a', 'c'])
  assert.deepEqual(await keys({ orderBy: 'n', startAfter: 2, endBefore: 'x' }), ['a'])
  assert.deepEqual(await keys({ orderBy: 'n', equalTo: 1 }), ['b'])
  assert.deepEqual(await keys({ orderBy: 'n', limitToFirst: 2 }), ['b', 'c'])
  assert.deepEqual(await keys({ orderBy: '$key', limitToLast: 1 }), ['d'])
  assert.deepEqual(await keys({ orderBy: '$key', startAt: 'b', limitToFirst: 2 }), ['b', 'c'])
  await assert.rejects(client.query(at, { orderBy: 'n', limitToLast: -1 }), Refused)
})

test('a value of megabytes arrives whole, at listeners too', async () => {
  const at = place()
  const text = 'é\u{1F600}x'.repeat(700_000)
  const received: Json[] = []
  const stop = client.on(at, 'value', (value) => received.push(value))
  await until(() => received.length === 1)
  const other = new ElkynClient(url, { token })
  await other.set(`${at}/text`, text)
  await until(() => received.length === 2)
  assert.equal((received[1] as { text: string }).text, text)
  other.close()
  stop()
})

test('a stopped listener hears nothing more, and stopping twice does no harm', async () => {
  const at = place()
  const received: Json[] = []
  const [stop, stopOther] = [
    client.on(at, 'value', (value) => received.push(value)),
    client.on(at, 'value', () => undefined),
  ]
  await until(() => received.length === 1)
  stop()
  stop()
  await client.set(at, 1)
  stopOther()
  assert.deepEqual(received, [null])
  const again: Json[] = []
  client.on(at, 'value', (value) => again.push(value))()
  client.on(at, 'value', (value) => again.push(value))
  await until(() => again.length === 1)
  assert.deepEqual(again, [1])
})

test('a path and paths below and above it can be listened to, in any order of coming', async () => {
  const at = place()
  const own = new ElkynClient(url, { token })
  const received: Record<string, Json[]> = { top: [], mid: [], low: [] }
  const listen = (name: string, path: string) =>
    own.on(path, 'value', (value) => received[name]?.push(value))
  const last = (name: string) => JSON.stringify(received[name]?.at(-1))
  listen('mid', `${at}/m`)
  await client.set(`${at}/m/l`, 1)
  await until(() => last('mid') === '{"l":1}')
  const stopTop = listen('top', at)
  listen('low', `${at}/m/l`)
  await until(() => last('top') === '{"m":{"l":1}}' && last('low') === '1')
  await client.update(at, { 'm/l': 2, other: 3 })
  await until(() => last('top') === '{"m":{"l":2},"other":3}' && last('low') === '2')
  stopTop()
  await client.set(`${at}/m/l`, 4)
  await until(() => last('mid') === '{"l":4}' && last('low') === '4')
  assert.deepEqual(received['low'], [1, 2, 4])
  own.close()
})

test('a path that may not be read leaves those below it that may', async () => {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const send = (where: string, method: string, body: unknown) =>
    fetch(`${url}${where}`, { method, headers, body: JSON.stringify(body) })
  const rules = { rules: { nest: { low: { '.read': true, '.write': true } } } }
  assert.equal((await send('/.settings/rules.json', 'PUT', rules)).status, 200)
  const signed = (await (await send('/auth/token', 'POST', { uid: 'ann' })).json()) as Signed
  const refused: string[] = []
  const ann = new ElkynClient(url, { token: signed.token, onRefused: (path) => refused.push(path) })
  const received: Json[] = []
  ann.on('/nest/low', 'value', (value) => received.push(value))
  await until(() => received.length === 1)
  ann.on('/nest', 'value', () => assert.fail('it must not get a value'))
  await until(() => refused.length === 1)
  await ann.set('/nest/low', 1)
  await client.set('/nest/low', 2)
  await until(() => received.at(-1) === 2)
  await assert.rejects(ann.set('/nest/other', 1), Refused)
  assert.deepEqual([refused, received], [['/nest'], [null, 1, 2]])
  ann.close()
})

interface Signed {
  token: string
}

test('what many listeners of one client hear comes over one connection', async () => {
  const own = new ElkynClient(url, { token })
  const at = place()
  let received = 0
  for (let n = 0; n < 500; n += 1) own.on(`${at}/${n}`, 'value', () => (received += 1))
  await until(() => received === 500)
  const metrics = await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${token}` } })
  const text = await metrics.text()
  assert.ok(Number(/kind="ws"} (\d+)/.exec(text)?.[1] ?? 0) <= 2)
  own.close()
})

test('a slow listener keeps neither events nor values', { skip: !globalThis.gc }, async () => {
  const own = new ElkynClient(url, { token })
  const at = place()
  const text = 'x'.repeat(50_000)
  let received = 0
  own.on(at, 'value', () => {
    received += 1
    for (const end = Date.now() + 4; Date.now() < end;);
  })
  await until(() => received === 1)
  const used = () => {
    globalThis.gc?.()
    return process.memoryUsage().heapUsed
  }
  const before = used()
  for (let n = 0; n < 300; n += 1) await client.set(at, text + n)
  await until(() => received > 10)
  await own.set(at, 'end')
  assert.ok(used() - before < 5_000_000, `${used() - before} bytes more`)
  own.close()
})

test('all clients are closed', () => client.close())

function circle(): unknown {
  const value: { self?: unknown } = {}
  value.self = value
  return value
}
