/** Real threads: a producer that blocks in one, consumers in others and on this one. */

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Worker } from 'node:worker_threads'

import { StrandAbortError, StrandView, type FieldSpec } from '../src/index.js'
import { freshRing, VERSIONS } from './rings.js'
import { recordOf, type PeerTask } from './threads/peer.js'

const FIELDS: FieldSpec[] = [
  { name: 'id', type: 'u32' },
  { name: 'label', type: 'utf8' },
  { name: 'samples', type: 'i32_array' },
]
const workers: Worker[] = []

after(() => Promise.all(workers.map((worker) => worker.terminate())))

function start(role: PeerTask['role'], buffer: SharedArrayBuffer, count = 0): Worker {
  const task: PeerTask = { role, buffer, count }
  const worker = new Worker(join(__dirname, 'threads/peer.js'), { workerData: task })
  workers.push(worker)
  return worker
}

/** Read everything on this thread; how many records were right. */
async function readHere(buffer: SharedArrayBuffer): Promise<number> {
  const view = new StrandView(buffer)
  const cursor = view.allocateCursor()
  let right = 0
  for (let seq = 0; ;) {
    const count = await view.waitForCommit(seq)
    if (count === seq) return right
    for (; seq < count; seq += 1) {
      cursor.seek(seq)
      const [id, label, samples] = recordOf(seq)
      assert.deepEqual(cursor.toTuple(), [id, label, Int32Array.from(samples)])
      right += 1
    }
    view.acknowledgeRead(count)
  }
}

for (const version of VERSIONS) {
  const options = { version, indexCapacity: 64, heapCapacity: 4096 }

  test(`v${version}: a worker writes what this thread reads`, async () => {
    const buffer = freshRing(FIELDS, options)
    const reading = readHere(buffer)
    start('producer', buffer, 20_000)
    assert.equal(await reading, 20_000)
  })

  test(`v${version}: consumers in two workers and here read every record`, async () => {
    const buffer = freshRing(FIELDS, options)
    const consumers = [start('consumer', buffer), start('consumer', buffer)]
    await Promise.all(consumers.map((worker) => once(worker, 'message')))
    const results = consumers.map((worker) => once(worker, 'message'))
    const reading = readHere(buffer)
    start('producer', buffer, 5000)
    assert.equal(await reading, 5000)
    assert.deepEqual((await Promise.all(results)).flat(), [5000, 5000])
  })
}

test('a worker that is blocked on a full ring is stopped by an abort', async () => {
  const buffer = freshRing(FIELDS, { indexCapacity: 4, heapCapacity: 4096 })
  const view = new StrandView(buffer)
  const worker = start('endless', buffer)
  await view.waitForCommit(3)
  view.signalAbort()
  const [reason] = (await once(worker, 'message')) as [string]
  assert.match(reason, /asked the producer to stop/)
  await assert.rejects(view.waitForCommit(view.committedCount), StrandAbortError)
})

test('without Atomics.waitAsync the same stream is read by polling', async () => {
  const { waitAsync } = Atomics as { waitAsync?: unknown }
  ;(Atomics as { waitAsync?: unknown }).waitAsync = undefined
  try {
    const buffer = freshRing(FIELDS, { indexCapacity: 64, heapCapacity: 4096 })
    const reading = readHere(buffer)
    start('producer', buffer, 3000)
    assert.equal(await reading, 3000)
  } finally {
    ;(Atomics as { waitAsync?: unknown }).waitAsync = waitAsync
  }
})

test('waiting ends after its timeout with the count there is', async () => {
  const view = new StrandView(freshRing(FIELDS))
  assert.equal(await view.waitForCommit(0, 5), 0)
  assert.equal(view.waitForCommitSync(0, 5), 0)
})

test('several waits on one view each get what they wait for', async () => {
  const buffer = freshRing(FIELDS, { indexCapacity: 64, heapCapacity: 4096 })
  const view = new StrandView(buffer)
  const waits = [view.waitForCommit(0, Infinity, 40), view.waitForCommit(0), view.waitForCommit(9)]
  start('producer', buffer, 50)
  const [many, one, ten] = await Promise.all(waits)
  assert.ok(many! >= 40 && one! >= 1 && ten! >= 10)
})
