import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test, { type TestContext } from 'node:test'

import { entryOfName, InputCache } from '../src/worker/inputCache.ts'
import type { Task } from '../src/worker/messages.ts'
import { nodeInputs } from '../src/worker/nodeInputs.ts'

function folderOf(context: TestContext): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'sennit-inputs-'))
  context.after(() => rmSync(folder, { recursive: true }))
  return folder
}

function task(number: number, bytes = 100): Task {
  const sha256 = String(number).repeat(64)
  const input = { name: 'shard-0', kind: 'shard', id: sha256.replace(/^./, 'a') }
  return { inputSha256: sha256, inputBytes: bytes, spec: { inputs: [input] } } as unknown as Task
}

const BYTES = Uint8Array.from({ length: 100 }, (_, at) => at)

test('an input is kept, and named by its shard', async (context) => {
  const folder = folderOf(context)
  const cache = new InputCache(nodeInputs(folder), 1000)
  assert.equal(await cache.get(task(1)), null)
  await cache.put(task(1), BYTES)
  assert.deepEqual(await cache.get(task(1)), BYTES)
  const later = new InputCache(nodeInputs(folder), 1000)
  assert.deepEqual(await later.objects(), [task(1).spec.inputs[0]?.id])
})

test('the oldest inputs make room, and one over the budget is not kept', async (context) => {
  const folder = folderOf(context)
  const cache = new InputCache(nodeInputs(folder), 250)
  for (const number of [1, 2, 3]) {
    await cache.put(task(number), BYTES)
    for (const name of readdirSync(folder).filter((each) => each.startsWith(String(number))))
      utimesSync(path.join(folder, name), number, number)
  }
  assert.equal(await cache.get(task(1)), null)
  assert.equal((await cache.objects()).length, 2)
  await cache.put(task(4, 251), BYTES)
  assert.equal((await cache.objects()).length, 2)
  await cache.limit(100)
  assert.equal((await cache.objects()).length, 1)
  await cache.limit(0)
  assert.deepEqual(readdirSync(folder), [])
})

test('words of a node that no path must have are not used', async (context) => {
  const folder = folderOf(context)
  const cache = new InputCache(nodeInputs(folder), 1000)
  const hostile = { ...task(1), inputSha256: '../../etc/passwd' }
  await cache.put(hostile, BYTES)
  assert.equal(await cache.get(hostile), null)
  assert.deepEqual(readdirSync(folder), [])
  assert.equal(entryOfName(`${'1'.repeat(64)}-${'a'.repeat(64)}-5/..`), null)
})

test('what a killed worker left half written goes, and other files stay', async (context) => {
  const folder = folderOf(context)
  const staged = path.join(folder, `${'1'.repeat(64)}-${'a'.repeat(64)}-5.77`)
  writeFileSync(staged, 'half')
  utimesSync(staged, 1, 1)
  writeFileSync(path.join(folder, 'notes.txt'), 'of its owner')
  assert.deepEqual(await new InputCache(nodeInputs(folder), 1000).objects(), [])
  assert.deepEqual(readdirSync(folder), ['notes.txt'])
})

test('a store that fails fails no task', async () => {
  const refuse = (): Promise<never> => Promise.reject(new Error('storage is refused'))
  const store = { entries: refuse, read: refuse, write: refuse, remove: refuse }
  const cache = new InputCache(store, 1000)
  await cache.put(task(1), BYTES)
  assert.equal(await cache.get(task(1)), null)
  assert.deepEqual(await cache.objects(), [])
})
