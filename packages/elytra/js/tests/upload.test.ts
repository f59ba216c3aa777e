import assert from 'node:assert/strict'
import { test } from 'node:test'

import { WorkerPool } from '../src/uploads/pool.ts'
import { Upload, type UploadOptions, type UploadSnapshot } from '../src/uploads/upload.ts'
import { FakeClock, FakeNetwork, FakeNode, fakeWorker } from './fakeNode.ts'

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

test('progress does not fall when a part that was sent has to be sent again', async () => {
  const { seen, upload } = world((node) => (node.putFaults = [0, 0, 0, 503, 0]))
  await upload.finished
  const falls = seen.filter((each, at) => at > 0 && each.bytesDone < seen[at - 1]!.bytesDone)
  assert.deepEqual(falls, [])
  const early = seen.filter((each) => each.fraction === 1 && each.partsDone < each.parts)
  assert.deepEqual(early, [])
})

test('without a network it waits until there is one, and however often that fails', async () => {
  const network = new FakeNetwork()
  const { node, clock, seen, upload, until } = world(
    (node) => (node.putFaults = Array.from({ length: 30 }, () => 0)),
    { connectivity: network, parallel: 1 },
  )
  network.isOnline = false
  await until('waiting')
  assert.equal(upload.snapshot().error?.code, 'offline')
  assert.equal(upload.snapshot().retryAtMs, null)
  assert.deepEqual(clock.slept, [])
  network.connect()
  await upload.finished
  assert.equal(node.bytes().toString(), CONTENT)
  assert.ok(seen.some(({ state }) => state === 'waiting'))
})

test('a node that does not answer is waited for, one that refuses is not', async () => {
  const silent = world((node) => (node.putFaults = Array.from({ length: 60 }, () => 0)))
  await silent.upload.finished
  assert.equal(silent.clock.slept.length, 60)
  const busy = world((node) => (node.putFaults = Array.from({ length: 60 }, () => 503)), {
    parallel: 1,
  })
  await busy.until('failed')
  assert.equal(busy.clock.slept.length, 7)
})

test('a pause while the network is away ends the wait', async () => {
  const network = new FakeNetwork()
  const { node, upload, until } = world((node) => (node.putFaults = [0]), {
    connectivity: network,
    parallel: 1,
  })
  network.isOnline = false
  await until('waiting')
  upload.pause()
  assert.equal(upload.snapshot().state, 'paused')
  network.isOnline = true
  upload.resume()
  await upload.finished
  assert.equal(node.bytes().toString(), CONTENT)
})

test('an upload that the node has removed says so, and starts anew when it is tried again', async () => {
  const { node, upload, until } = world((node) => (node.putFaults = [404]), { parallel: 1 })
  await until('failed')
  assert.equal(upload.snapshot().error?.code, 'upload-gone')
  upload.resume()
  await upload.finished
  assert.equal(node.log.filter((line) => line === 'POST /api/start-upload').length, 2)
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
