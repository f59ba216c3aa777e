import assert from 'node:assert/strict'
import test from 'node:test'
import { Worker } from 'node:worker_threads'

import { writeArrow } from '../src/arrow/write.ts'
import { readArrow } from '../src/arrow/read.ts'
import { SennitError } from '../src/errors.ts'
import { col } from '../src/plan/expr.ts'
import type { PlanJson } from '../src/plan/json.ts'
import type { StartCompute } from '../src/worker/channel.ts'
import '../src/worker/computeLoop.ts' // compiled for the threads below
import { ComputeThread, type ComputeTask } from '../src/worker/computeThread.ts'

/** The real loop of the compute worker, in a thread; `before` runs first at each task. */
function threadOf(before = ''): StartCompute & { starts: number } {
  const loop = new URL('../src/worker/computeLoop.js', import.meta.url)
  const code = `
    const { parentPort } = require('node:worker_threads')
    import(${JSON.stringify(loop.href)}).then(({ serveCompute }) => {
      const receive = serveCompute((message, transfer) => parentPort.postMessage(message, transfer))
      parentPort.on('message', (message) => {
        if (message.kind === 'compute') { ${before} }
        receive(message)
      })
    })`
  const start: StartCompute = (onMessage, onEnd) => {
    counted.starts += 1
    const thread = new Worker(code, { eval: true })
    thread.on('message', onMessage)
    thread.on('error', (error) => onEnd(String(error)))
    thread.on('exit', () => onEnd('exit'))
    return {
      post: (message, transfer) => thread.postMessage(message, transfer),
      terminate: () => {
        thread.removeAllListeners()
        void thread.terminate()
      },
    }
  }
  const counted = Object.assign(start, { starts: 0 })
  return counted
}

const PLAN: PlanJson = {
  v: 1,
  op: 'filter',
  input: { op: 'scan', source: { dataset: '' } },
  predicate: col('n').gt(2).json,
}
const FIELDS = [{ name: 'n', type: 'Int64' }]

function task(silenceSeconds = 20): ComputeTask {
  const column = { name: 'n', type: 'Int64', values: [1n, 2n, 3n, 4n] }
  const input = writeArrow([column], 4)
  return { plan: PLAN, schema: { fields: FIELDS }, input, silenceSeconds }
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => assert.fail('it did not fail'),
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof SennitError, String(error))
  return error.code
}

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
