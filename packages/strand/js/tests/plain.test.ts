/** Rings shared with another implementation of version 5, which knows none of our counters. */

import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  readStrandHeader,
  StrandHeaderError,
  StrandView,
  StrandWriter,
  type FieldSpec,
} from '../src/index.js'
import { freshRing, readAll, rows } from './rings.js'

const NUMBER: FieldSpec[] = [{ name: 'n', type: 'u32' }]
const RECORDS = 8
// Words of version 5 in an Int32Array.
const WRITE = 7
const COMMIT = 8
const READ = 9
const STATUS = 10
const CONSUMERS = 14
const VACANT = 0x7fffffff
const STREAMING = 1
const EOS = 2

/** A v5 ring as another implementation makes it: nothing where our counters are. */
function plainRing(metadata: Record<string, unknown> = {}): SharedArrayBuffer {
  const buffer = freshRing(NUMBER, { version: 5, indexCapacity: RECORDS })
  const head = new DataView(buffer)
  const at = 92 + head.getUint32(88, true)
  const text = new TextEncoder().encode(JSON.stringify({ columns: ['n'], ...metadata }))
  new Uint8Array(buffer, 3072, 1024).fill(0)
  head.setUint32(at, text.length, true)
  new Uint8Array(buffer, at + 4, text.length).set(text)
  return buffer
}

/** Publish `count` records as another implementation's writer does; the threads it woke. */
function publish(words: Int32Array, from: number, count: number): number {
  const stride = readStrandHeader(words.buffer as SharedArrayBuffer).recordStride
  for (let n = from; n < from + count; n += 1) words[(4096 + (n % RECORDS) * stride) / 4] = n
  Atomics.store(words, WRITE, from + count)
  Atomics.store(words, COMMIT, from + count)
  return Atomics.notify(words, COMMIT)
}

/** Let other events run until `woken` reports that it woke a waiter. */
async function untilWoken(woken: () => number): Promise<void> {
  while (woken() === 0) await new Promise((done) => setImmediate(done))
}

test('a stream that another implementation wrote is read', () => {
  const words = new Int32Array(plainRing())
  publish(words, 0, 5)
  Atomics.store(words, STATUS, EOS)
  const view = new StrandView(words.buffer as SharedArrayBuffer)
  assert.deepEqual(readAll(view), rows(5))
  assert.equal(view.status, 'eos')
  view.acknowledgeRead(5)
  assert.equal(words[READ], 5)
})

test("another implementation's live writer wakes our reader, and is held by it", async () => {
  const words = new Int32Array(plainRing())
  Atomics.store(words, STATUS, STREAMING)
  const view = new StrandView(words.buffer as SharedArrayBuffer)
  const first = view.waitForCommit(0)
  await untilWoken(() => Atomics.notify(words, COMMIT))
  publish(words, 0, 3)
  assert.equal(await first, 3)
  view.acknowledgeRead(2)
  assert.equal(words[READ], 2)
  const second = view.waitForCommit(3)
  await untilWoken(() => Atomics.notify(words, COMMIT))
  publish(words, 3, 2)
  assert.equal(await second, 5)
})

for (const slot of [null, CONSUMERS])
  test(`another implementation's reader wakes our writer (${slot === null ? 'read cursor' : 'token'})`, async () => {
    const words = new Int32Array(plainRing())
    if (slot !== null) Atomics.store(words, slot, 0)
    const writer = new StrandWriter(words.buffer as SharedArrayBuffer)
    const writing = writer.writeRecordBatchAsync(rows(RECORDS + 2))
    let woken = 0
    await untilWoken(() => (woken = Atomics.notify(words, READ)))
    assert.equal(woken, 1)
    Atomics.store(words, slot ?? READ, 4)
    Atomics.notify(words, READ)
    assert.equal(await writing, RECORDS + 2)
    assert.equal(words[COMMIT], RECORDS + 2)
  })

test('a vacant plain consumer slot does not hold our writer', async () => {
  const words = new Int32Array(plainRing())
  assert.equal(words[CONSUMERS], VACANT)
  const writer = new StrandWriter(words.buffer as SharedArrayBuffer)
  const view = new StrandView(words.buffer as SharedArrayBuffer)
  const writing = writer.writeRecordBatchAsync(rows(RECORDS + 2))
  await view.waitForCommit(0, Infinity, RECORDS)
  view.acknowledgeRead(RECORDS)
  assert.equal(await writing, RECORDS + 2)
})

test('metadata where our counters would be is read, and leaves no room for roles', () => {
  const buffer = plainRing({ note: 'x'.repeat(3500) })
  assert.deepEqual(readStrandHeader(buffer).schema.names, ['n'])
  for (const open of [() => new StrandView(buffer), () => new StrandWriter(buffer)])
    assert.throws(open, (error: StrandHeaderError) => {
      assert.equal(error.check, 'extension')
      return /end by byte 3072, found an end at byte \d+/.test(error.message)
    })
})

test('something else behind a v5 header is refused', () => {
  const buffer = plainRing()
  new Uint8Array(buffer)[3500] = 1
  assert.throws(() => new StrandView(buffer), StrandHeaderError)
})
