import assert from 'node:assert/strict'
import test from 'node:test'

import { planHash } from '../src/plan/canonical.ts'
import { sha256Hex } from '../src/uploads/sha256.ts'
import { pack, unpack, type Packed } from '../src/worker/messagePack.ts'
import { RemoteWorker } from '../src/worker/remoteWorker.ts'
import { task, threadOf } from './computeTasks.ts'

/** The node's end of the worker's connection: what it sends by hand, and what it has received. */
class NodeEnd {
  static readonly OPEN = 1
  static last: NodeEnd
  readonly readyState = 1
  readonly received: Record<string, unknown>[] = []
  isClosed = false
  onopen: () => void = () => undefined
  onmessage: (event: { data: ArrayBuffer }) => void = () => undefined

  constructor() {
    NodeEnd.last = this
    setImmediate(() => this.onopen())
  }

  /** Called by the worker. */
  send(frame: Uint8Array): void {
    this.received.push(unpack(frame) as Record<string, unknown>)
  }

  close(): void {
    this.isClosed = true
  }

  /** Send the worker a message. */
  push(message: Record<string, unknown>): void {
    this.onmessage({ data: pack(message as Packed).buffer })
  }

  async until(word: string, count = 1): Promise<Record<string, unknown>[]> {
    for (;;) {
      const found = this.received.filter((each) => each.word === word)
      if (found.length >= count) return found
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
}

/** A worker with one thread that is connected; its inputs come from `fetch`. */
async function connected(before = ''): Promise<{ worker: RemoteWorker; node: NodeEnd }> {
  const { input } = task()
  globalThis.WebSocket = NodeEnd as never
  globalThis.fetch = async () => new Response(input.slice())
  const worker = new RemoteWorker({
    url: 'http://node',
    token: 't',
    threads: 1,
    startCompute: threadOf(before),
  }).start()
  const node = NodeEnd.last
  await node.until('hello')
  node.push({ word: 'welcome', resume: 'r', inlineBytesMax: 1 << 18, attempts: [] })
  return { worker, node }
}

async function taskMessage(attempt: string): Promise<Record<string, unknown>> {
  const { plan, schema, input } = task()
  return {
    word: 'task',
    attempt,
    spec: { plan, inputs: [] },
    planHash: await planHash(plan),
    input: '/input',
    inputBytes: input.length,
    inputSha256: await sha256Hex(input),
    schema,
    upload: '/upload',
    leaseSeconds: 15,
  }
}

test('a worker has credit for one task more than threads, and fetches its input meanwhile', async () => {
  const { worker, node } = await connected(
    'Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)',
  )
  assert.deepEqual(await node.until('credit'), [{ word: 'credit', n: 2 }])
  node.push(await taskMessage('a'))
  node.push(await taskMessage('b'))
  // The second was received, which renews its lease, before the first has a result.
  const renewed = new Set((await node.until('renew', 2)).map(({ attempt }) => attempt))
  assert.deepEqual([...renewed].sort(), ['a', 'b'])
  assert.equal(
    node.received.some(({ word }) => word === 'partial'),
    false,
  )
  for (const { attempt } of await node.until('partial', 2)) node.push({ word: 'ack', attempt })
  const credits = (await node.until('credit', 3)).map(({ n }) => n)
  assert.deepEqual(credits, [2, 1, 1])
  worker.stop()
})

test('a task that was under way when the worker paused is computed, and one too many is not', async () => {
  const { worker, node } = await connected()
  await node.until('credit')
  worker.pause('by you')
  node.push(await taskMessage('a'))
  await node.until('partial')
  assert.equal(node.isClosed, false)
  node.push({ word: 'ack', attempt: 'a' })
  assert.equal(node.received.filter(({ word }) => word === 'credit').length, 1)
  worker.resume()
  assert.deepEqual((await node.until('credit', 2))[1], { word: 'credit', n: 2 })
  const message = await taskMessage('b')
  for (const attempt of ['b', 'c', 'd']) node.push({ ...message, attempt })
  assert.equal(node.isClosed, true)
  worker.stop()
})

test('a task whose input exceeds the memory of a thread, and one over the data cap, are rejected', async () => {
  const { worker, node } = await connected()
  await node.until('credit')
  node.push({ ...(await taskMessage('large')), inputBytes: (512 << 20) + 1 })
  assert.equal((await node.until('failed'))[0]?.code, 'memory-cap-exceeded')
  worker.limitBytes(1000)
  node.push({ ...(await taskMessage('capped')), inputBytes: 1001 })
  assert.equal((await node.until('failed', 2))[1]?.code, 'unavailable')
  await node.until('drain')
  worker.stop()
})
