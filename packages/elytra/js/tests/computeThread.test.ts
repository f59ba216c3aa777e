import assert from 'node:assert/strict'
import test from 'node:test'

import { readArrow } from '../src/arrow/read.ts'
import type { StartCompute } from '../src/worker/channel.ts'
import { ComputeThread } from '../src/worker/computeThread.ts'
import { codeOf, task, threadOf } from './computeTasks.ts'

test('a thread computes tasks, and hands their rows over', async () => {
  const start = threadOf()
  const thread = new ComputeThread(start)
  for (let count = 0; count < 2; count += 1) {
    const { rows, data } = await thread.run(task(), () => undefined)
    const [batch] = [...readArrow(data).batches()]
    assert.deepEqual([rows, batch?.rows], [4, 2])
  }
  assert.equal(start.starts, 1)
  thread.close()
})

test('an error of the plan is the task alone', async () => {
  const start = threadOf()
  const thread = new ComputeThread(start)
  const wrong = { ...task(), schema: { fields: [{ name: 'm', type: 'Int64' }] } }
  assert.equal(await codeOf(thread.run(wrong, () => undefined)), 'internal')
  assert.equal((await thread.run(task(), () => undefined)).rows, 4)
  assert.equal(start.starts, 1)
  thread.close()
})

test('a thread that hangs is replaced, and its task has failed', async () => {
  const start = threadOf('for (;;) {}')
  const thread = new ComputeThread(start)
  assert.equal(await codeOf(thread.run(task(0.4), () => undefined)), 'unavailable')
  assert.equal(start.starts, 2)
  thread.close()
})

test('a thread that dies is replaced, and its task has failed', async () => {
  const start = threadOf('process.exit(3)')
  const thread = new ComputeThread(start)
  assert.equal(await codeOf(thread.run(task(), () => undefined)), 'unavailable')
  assert.deepEqual([start.starts, thread.broken], [2, null])
  thread.close()
})

test('cancel ends a loop without an end', async () => {
  const start = threadOf('for (;;) {}')
  const thread = new ComputeThread(start)
  const run = thread.run(task(), () => undefined)
  setTimeout(() => thread.cancel(), 50)
  assert.equal(await codeOf(run), 'cancelled')
  assert.equal(start.starts, 2)
  thread.close()
})

test('a thread that cannot be started is not started again', async () => {
  const start: StartCompute = (onMessage, onEnd) => {
    setTimeout(() => onEnd('no script'), 1)
    return { post: () => undefined, terminate: () => undefined }
  }
  const thread = new ComputeThread(start)
  assert.equal(await codeOf(thread.run(task(), () => undefined)), 'unavailable')
  assert.equal(thread.broken, 'no script')
})
