/** Against a server at ELKYN_URL with ELKYN_TOKEN; POST to ELKYN_CONTROL/stop and /start. */

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { type ClientOptions, ElkynClient } from '../src/client.ts'
import { BadValue, Closed, Refused } from '../src/errors.ts'
import { ElkynStore } from '../src/index.ts'
import type { QueueStorage } from '../src/storedWrites.ts'
import type { Json } from '../src/values.ts'

const url = required('ELKYN_URL')
const token = required('ELKYN_TOKEN')
const control = required('ELKYN_CONTROL')
let places = 0
const place = () => `/js/${(places += 1)}`

function required(name: string): string {
  const value = process.env[name]
  assert.ok(value, `${name} must be set`)
  return value
}

function using(body: (client: ElkynClient) => Promise<void>, options: ClientOptions = {}) {
  return async () => {
    const client = new ElkynClient(url, { token, ...options })
    try {
      await body(client)
    } finally {
      client.close()
    }
  }
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5))
}

/** Ask the test that started the server to stop it or to start it again. */
async function server(what: 'stop' | 'start'): Promise<void> {
  const answer = await fetch(`${control}/${what}`, { method: 'POST' })
  assert.equal(answer.status, 200)
}

test(
  'writes and reads',
  using(async (client) => {
    const at = place()
    await client.set(`${at}/ann`, { name: 'Ann', tags: ['a', 'b'], at: { '.sv': 'timestamp' } })
    await client.update(at, { 'ann/name': 'Anna', 'bob/name': 'Bob' })
    const { key, done } = client.push(`${at}/log`, 1.5)
    await done
    await client.delete(`${at}/bob`)
    const value = (await client.get(at)) as { ann: { at: number; name: string } }
    assert.ok(Math.abs(value.ann.at - Date.now()) < 60_000)
    assert.deepEqual(value, {
      ann: { name: 'Anna', tags: ['a', 'b'], at: value.ann.at },
      log: { [key]: 1.5 },
    })
  }),
)

test(
  'keys with every kind of character arrive as they are',
  using(async (client) => {
    const at = place()
    const keys = ['ü', 'a b', '%2F', 'a?b', 'a&b=c', '"', '\u{1F600}', 'a+b']
    for (const [index, key] of keys.entries()) await client.set(`${at}/${key}`, index)
    const value = (await client.get(at)) as Record<string, number>
    assert.deepEqual(
      keys.map((key) => value[key]),
      keys.map((_key, index) => index),
    )
  }),
)

test(
  'concurrent transactions all count',
  using(async (client) => {
    const at = place()
    const add = () => client.transaction(at, (value) => Number(value ?? 0) + 1)
    await Promise.all([add(), add(), add(), add(), add()])
    assert.equal(await client.get(at), 5)
    assert.equal(await client.transaction(at, () => undefined), 5)
  }),
)

test(
  'queries return the selected children',
  using(async (client) => {
    const at = place()
    await client.set(at, { a: 3, b: 1, c: 2 })
    assert.deepEqual(await client.query(at, { orderBy: '$key', startAt: 'b' }), { b: 1, c: 2 })
    assert.deepEqual(await client.query(at, { orderBy: '$key', limitToLast: 1 }), { c: 2 })
  }),
)

test(
  'listeners hear what others write, and their own writes at once',
  using(async (client) => {
    const at = place()
    const other = new ElkynClient(url, { token })
    await other.set(at, { a: 1 })
    const received: Json[] = []
    const added: (string | null)[] = []
    client.on(at, 'value', (value) => received.push(value))
    client.on(at, 'child_added', (_value, key) => added.push(key))
    await until(() => received.length === 1)
    const written = client.set(`${at}/b`, 2)
    assert.deepEqual(received.at(-1), { a: 1, b: 2 })
    await written
    await other.set(`${at}/c`, 3)
    await until(() => added.length === 3)
    assert.deepEqual(received, [{ a: 1 }, { a: 1, b: 2 }, { a: 1, b: 2, c: 3 }])
    other.close()
  }),
)

test(
  'what the server refuses rejects, and vanishes from the view',
  using(
    async (intruder) => {
      const refused: string[] = []
      await assert.rejects(intruder.get('/js'), Refused)
      await assert.rejects(intruder.set('/js/x', 1), Refused)
      assert.equal(intruder.pendingWrites, 0)
      assert.deepEqual(refused, [])
    },
    { token: 'wrong' },
  ),
)

test('a refused listener is notified', async () => {
  let notify: (path: string) => void = () => undefined
  const refused = new Promise<string>((resolve) => (notify = resolve))
  const client = new ElkynClient(url, { token: 'wrong', onRefused: (path) => notify(path) })
  client.on('/js/secret', 'value', () => assert.fail('it must not get a value'))
  assert.equal(await refused, '/js/secret')
  client.close()
})

test('a listen in a namespace that does not exist is refused with the reason', async () => {
  let notify: (error: Refused) => void = () => undefined
  const refused = new Promise<Refused>((resolve) => (notify = resolve))
  const onRefused = (_path: string, error: Refused) => notify(error)
  const client = new ElkynClient(url, { token, namespace: 'missing', onRefused })
  client.on('/a', 'value', () => assert.fail('there is no value'))
  const { status, message } = await refused
  assert.equal(status, 404)
  assert.match(message, /there is no namespace "missing"; create it with: elkyn namespace add/)
  client.close()
})

test(
  'bad values are refused before they are queued',
  using(async (client) => {
    await assert.rejects(client.set('/js/a', { 'b.c': 1 }), BadValue)
    await assert.rejects(client.update('/js', { a: { 'b/c': 1 } }), BadValue)
    assert.equal(client.pendingWrites, 0)
  }),
)

test(
  'writes made while the server is away arrive once, in order, and listeners go on',
  using(async (client) => {
    const at = place()
    await client.set(at, { n: 0 })
    const received: Json[] = []
    client.on(`${at}/n`, 'value', (value) => received.push(value))
    await until(() => received.length === 1)
    await server('stop')
    const writes = [1, 2, 3].map((n) => client.set(`${at}/n`, n))
    const { done } = client.push(`${at}/log`, 'one')
    assert.deepEqual(received, [0, 1, 2, 3])
    assert.equal(client.pendingWrites, 4)
    await server('start')
    await Promise.all([...writes, done])
    const value = (await client.get(at)) as { n: number; log: object }
    assert.equal(value.n, 3)
    assert.equal(Object.keys(value.log).length, 1)
    const other = new ElkynClient(url, { token })
    await other.set(`${at}/n`, 4)
    await until(() => received.at(-1) === 4)
    other.close()
  }),
)

test('waiting writes are kept over a restart of the page', async () => {
  const at = place()
  const kept = new Map<string, string>()
  const storage: QueueStorage = {
    get length() {
      return kept.size
    },
    key: (index) => [...kept.keys()][index] ?? null,
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, text) => void kept.set(name, text),
    removeItem: (name) => void kept.delete(name),
  }
  await server('stop')
  const first = new ElkynClient(url, { token, storage })
  const lost = first.set(at, 'later')
  first.close()
  await assert.rejects(lost, Closed)
  await server('start')
  const second = new ElkynClient(url, { token, storage })
  await until(() => second.pendingWrites === 0)
  assert.equal(await second.get(at), 'later')
  second.close()
})

test('a replica follows, writes through, and catches up after it was away', async () => {
  const at = place()
  const folder = mkdtempSync(join(tmpdir(), 'elkyn-replica-'))
  const client = new ElkynClient(url, { token })
  await client.set(at, { a: 1 })
  const options = { mode: 'replica', url, token, paths: [at], path: folder } as const
  const first = new ElkynStore(options)
  assert.throws(() => first.get(at), { name: 'Offline' })
  await first.ready
  assert.deepEqual(first.get(at), { a: 1 })
  await first.set(`${at}/b`, 2)
  await until(() => JSON.stringify(first.get(at)) === '{"a":1,"b":2}')
  await first.close()
  await client.update(at, { a: null, c: 3 })
  const second = new ElkynStore(options)
  assert.deepEqual(second.get(at), { a: 1, b: 2 })
  await until(() => JSON.stringify(second.get(at)) === '{"b":2,"c":3}')
  await second.close()
  client.close()
  rmSync(folder, { recursive: true })
})
