import assert from 'node:assert/strict'
import { test } from 'node:test'

import { WorkerPool } from '../src/uploads/pool.ts'
import { resumeKey, storageResume } from '../src/uploads/resume.ts'
import { Upload, type UploadOptions, type UploadSnapshot } from '../src/uploads/upload.ts'
import { FakeClock, FakeNode, fakeWorker } from './fakeNode.ts'

const CONTENT = 'carrier,distance\nUA,1400\nAA,1089\n'

interface World {
  node: FakeNode
  clock: FakeClock
  seen: UploadSnapshot[]
  upload: Upload
  until: (state: UploadSnapshot['state']) => Promise<void>
}

function world(
  prepare: (node: FakeNode) => void = () => undefined,
  options: Partial<UploadOptions> = {},
  node = new FakeNode(),
): World {
  prepare(node)
  const clock = new FakeClock()
  const seen: UploadSnapshot[] = []
  const file = new File([CONTENT], 'flights.csv', { lastModified: 7 })
  const pool = new WorkerPool(() => fakeWorker(node), 3)
  const upload = new Upload(file, {
    pool,
    api: node.api(),
    clock,
    onChange: (snapshot) => seen.push(snapshot),
    ...options,
  })
  const until = async (state: UploadSnapshot['state']) => {
    for (let turn = 0; upload.snapshot().state !== state; turn += 1) {
      assert.ok(turn < 10_000, `never ${state}, but ${upload.snapshot().state}`)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  return { node, clock, seen, upload, until }
}

function memoryStorage() {
  const values = new Map<string, string>()
  return {
    values,
    getItem: (key: string) => values.get(key) ?? null,
    setItem: (key: string, value: string) => void values.set(key, value),
    removeItem: (key: string) => void values.delete(key),
  }
}

test('every byte arrives, and the result names dataset and job', async () => {
  const { node, upload } = world()
  assert.deepEqual(await upload.finished, { datasetId: 'd1', jobId: 'j1' })
  assert.equal(node.bytes().toString(), CONTENT)
  assert.equal(upload.snapshot().fraction, 1)
})

test('progress never passes the stored and sent bytes, for any report of a browser', async () => {
  const { node, seen, upload } = world()
  await upload.finished
  assert.ok(seen.some((snapshot) => snapshot.bytesDone > 0))
  assert.ok(seen.every((snapshot) => snapshot.bytesDone <= snapshot.size && snapshot.fraction <= 1))
  assert.ok(
    seen.every((snapshot) => snapshot.bytesDone <= (snapshot.partsDone + 3) * node.partBytes),
  )
})

test('a broken connection is waited out, with growing delays', async () => {
  const { node, clock, seen, upload } = world((node) => {
    node.startFaults = [0]
    node.putFaults = [0, 503, 429]
    node.completeFaults = [0]
  })
  await upload.finished
  assert.equal(node.bytes().toString(), CONTENT)
  assert.equal(clock.slept.length, 5)
  assert.ok(seen.some((snapshot) => snapshot.state === 'waiting' && snapshot.retryAtMs !== null))
  assert.equal(upload.snapshot().error, null)
})

test('what cannot get better fails at once with the words of the node', async () => {
  const { clock, upload, until } = world((node) => (node.putFaults = [507]))
  await until('failed')
  assert.equal(upload.snapshot().error?.message, 'fault 507')
  assert.deepEqual(clock.slept, [])
})

test('after a failure it resumes where it stopped', async () => {
  const { node, upload, until } = world((node) => (node.putFaults = [413]), { parallel: 1 })
  await until('failed')
  upload.resume()
  await upload.finished
  assert.equal(node.bytes().toString(), CONTENT)
})

test('a name in use is a conflict that the page can offer to replace', async () => {
  const { upload, until } = world((node) => (node.startFaults = [409]))
  await until('failed')
  const { error } = upload.snapshot()
  assert.equal(error?.code, 'conflict')
})

test('a pause stops sending, and resuming sends only what is missing', async () => {
  const { node, upload, until } = world((node) => (node.hold = true))
  await until('sending')
  upload.pause()
  assert.equal(upload.snapshot().state, 'paused')
  node.release()
  upload.resume()
  await upload.finished
  assert.equal(node.bytes().toString(), CONTENT)
})

test('cancelling notifies the node and rejects', async () => {
  const { node, upload, until } = world((node) => (node.hold = true))
  await until('sending')
  await upload.cancel()
  await assert.rejects(upload.finished, { code: 'cancelled' })
  assert.ok(node.log.includes('DELETE /api/uploads/u1'))
})

test('a second visit sends only the parts that are missing', async () => {
  const storage = memoryStorage()
  const resume = storageResume(storage)
  const first = world((node) => (node.refuseAfter = 3), { resume, parallel: 1 })
  await first.until('failed')
  first.node.refuseAfter = Infinity
  const second = world(() => undefined, { resume }, first.node)
  await second.upload.finished
  assert.ok(second.upload.snapshot().resumed)
  assert.equal(second.seen.find((snapshot) => snapshot.state === 'sending')?.partsDone, 3)
  assert.equal(first.node.log.filter((line) => line === 'POST /api/start-upload').length, 1)
  assert.equal(first.node.bytes().toString(), CONTENT)
  assert.equal(storage.values.size, 0)
})

test('a remembered upload that the node forgot starts afresh', async () => {
  const storage = memoryStorage()
  const resume = storageResume(storage)
  resume.set(resumeKey(new File([CONTENT], 'flights.csv', { lastModified: 7 })), 'gone')
  const { node, upload } = world(() => undefined, { resume })
  await upload.finished
  assert.equal(upload.snapshot().resumed, false)
  assert.deepEqual(node.log.slice(0, 2), ['GET /api/uploads/gone', 'POST /api/start-upload'])
})

test('a remembered upload of another size is not gone on with', async () => {
  const storage = memoryStorage()
  const resume = storageResume(storage)
  const node = new FakeNode()
  await node.api().start({ name: 'other.csv', size: 5 })
  resume.set(resumeKey(new File([CONTENT], 'flights.csv', { lastModified: 7 })), 'u1')
  const { upload } = world(() => undefined, { resume }, node)
  await upload.finished
  assert.equal(upload.snapshot().resumed, false)
})

test('parts the node misses at completion are sent again', async () => {
  const { node, upload } = world((node) => (node.loseAtFirstCompletion = [1, 2]))
  await upload.finished
  assert.equal(node.bytes().toString(), CONTENT)
})

test('an empty file needs no parts', async () => {
  const node = new FakeNode()
  const pool = new WorkerPool(() => fakeWorker(node), 2)
  const upload = new Upload(new File([], 'empty.csv'), {
    pool,
    api: node.api(),
    clock: new FakeClock(),
  })
  assert.equal((await upload.finished).datasetId, 'd1')
})

test('a worker that dies is replaced, and its part is sent again', async () => {
  const node = new FakeNode()
  let started = 0
  const pool = new WorkerPool(() => {
    const worker = fakeWorker(node)
    if (started++ === 0)
      worker.postMessage = () =>
        queueMicrotask(() => worker.onerror?.({ message: 'out of memory' } as ErrorEvent))
    return worker
  }, 2)
  const upload = new Upload(new File([CONTENT], 'flights.csv'), {
    pool,
    api: node.api(),
    clock: new FakeClock(),
  })
  await upload.finished
  assert.equal(node.bytes().toString(), CONTENT)
})

test('two uploads share the workers of a pool', async () => {
  const node = new FakeNode()
  let started = 0
  const pool = new WorkerPool(() => (started++, fakeWorker(node)), 2)
  const upload = (name: string) =>
    new Upload(new File([CONTENT], name), { pool, api: node.api(), clock: new FakeClock() })
  await Promise.all([upload('a.csv').finished, upload('b.csv').finished])
  assert.equal(started, 2)
})

test('a failed upload rejects, and resumes with a new promise', async () => {
  const { node, upload } = world((node) => (node.startFaults = [403]))
  const first = upload.finished
  await assert.rejects(first, { status: 403 })
  upload.resume()
  assert.notEqual(upload.finished, first)
  await upload.finished
  assert.equal(node.bytes().toString(), CONTENT)
})
