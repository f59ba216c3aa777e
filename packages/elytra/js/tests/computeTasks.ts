/** Tasks, and the real loop of the compute worker in threads. */

import assert from 'node:assert/strict'
import { Worker } from 'node:worker_threads'

import { writeArrow } from '../src/arrow/write.ts'
import { SennitError } from '../src/errors.ts'
import { col } from '../src/plan/expr.ts'
import type { PlanJson } from '../src/plan/json.ts'
import type { StartCompute } from '../src/worker/channel.ts'
import '../src/worker/computeLoop.ts' // compiled for the threads below
import type { ComputeTask } from '../src/worker/computeThread.ts'

/** The real loop of the compute worker, in a thread; `before` runs first at each task, with `workerData`. */
export function threadOf(before = '', data: unknown = null): StartCompute & { starts: number } {
  const loop = new URL('../src/worker/computeLoop.js', import.meta.url)
  const code = `
    const { parentPort, workerData } = require('node:worker_threads')
    import(${JSON.stringify(loop.href)}).then(({ serveCompute }) => {
      const receive = serveCompute((message, transfer) => parentPort.postMessage(message, transfer))
      parentPort.on('message', (message) => {
        if (message.kind === 'compute') { ${before} }
        receive(message)
      })
    })`
  const start: StartCompute = (onMessage, onEnd) => {
    counted.starts += 1
    const thread = new Worker(code, { eval: true, workerData: data })
    thread.on('message', onMessage)
    thread.on('error', (error) => onEnd(String(error)))
    thread.on('exit', () => onEnd('exit'))
    return {
      post: (message, transfer) => thread.postMessage(message, transfer as ArrayBuffer[]),
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

export function task(silenceSeconds = 20): ComputeTask {
  const column = { name: 'n', type: 'Int64', values: [1n, 2n, 3n, 4n] }
  const input = writeArrow([column], 4)
  return { plan: PLAN, schema: { fields: FIELDS }, input, silenceSeconds }
}

export async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => assert.fail('it did not fail'),
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof SennitError, String(error))
  return error.code
}
