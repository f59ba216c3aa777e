import assert from 'node:assert/strict'
import test from 'node:test'

import { ByteBudget } from '../src/worker/byteBudget.ts'
import { ComputePool } from '../src/worker/computePool.ts'
import { InputBuffers } from '../src/worker/inputBuffers.ts'
import { codeOf, task, threadOf } from './computeTasks.ts'

const never = new AbortController().signal
const nothing = (): void => undefined

/** Waits in each task until as many tasks have come here as `workerData` says: in a row they never would. */
const MEET = `
  const [met] = workerData
  Atomics.add(met, 0, 1)
  Atomics.notify(met, 0)
  for (let seen = Atomics.load(met, 0); seen < met[1]; seen = Atomics.load(met, 0))
    Atomics.wait(met, 0, seen)`

test('as many tasks are computed at the same time as there are threads', async () => {
  const met = new Int32Array(new SharedArrayBuffer(8))
  met[1] = 3
  const start = threadOf(MEET, [met])
  const pool = new ComputePool(start, 3)
  const made = await Promise.all([1, 2, 3].map(() => pool.run(task(), never, nothing, nothing)))
  assert.deepEqual(
    made.map(({ rows }) => rows),
    [4, 4, 4],
  )
  assert.equal(start.starts, 3)
  pool.close()
})

test('what finds no thread waits for one, and threads are started as they are needed', async () => {
  const start = threadOf()
  const pool = new ComputePool(start, 4)
  pool.open()
  await pool.run(task(), never, nothing, nothing)
  await pool.run(task(), never, nothing, nothing)
  assert.equal(start.starts, 1)
  const one = new ComputePool(threadOf(), 1)
  const order: number[] = []
  await Promise.all([1, 2, 3].map((id) => one.run(task(), never, () => order.push(id), nothing)))
  assert.deepEqual(order, [1, 2, 3])
  pool.close()
  one.close()
})

test('a task that hangs, one that is cancelled and one that waits end alone', async () => {
  const start = threadOf('if (message.input.length !== 0 && message.plan.hang) for (;;) {}')
  const pool = new ComputePool(start, 2)
  const endless = { ...task(), plan: { ...task().plan, hang: true } as never }
  const hung = codeOf(pool.run({ ...endless, silenceSeconds: 0.4 }, never, nothing, nothing))
  const stop = new AbortController()
  const stopped = codeOf(
    pool.run(endless, stop.signal, () => setTimeout(() => stop.abort(), 50), nothing),
  )
  const waits = new AbortController()
  const waiting = codeOf(pool.run(task(), waits.signal, nothing, nothing))
  waits.abort()
  const last = pool.run(task(), never, nothing, nothing)
  assert.deepEqual(
    [await waiting, await stopped, await hung, (await last).rows],
    ['cancelled', 'cancelled', 'unavailable', 4],
  )
  assert.equal(start.starts, 4) // each of the two was replaced
  pool.close()
})

test('closing ends what is computed, and starts nothing', async () => {
  const start = threadOf('for (;;) {}')
  const pool = new ComputePool(start, 1)
  const stop = new AbortController()
  const run = codeOf(pool.run(task(), stop.signal, nothing, nothing))
  await Promise.resolve()
  pool.close()
  stop.abort()
  assert.equal(await run, 'cancelled')
  assert.equal(start.starts, 1)
})

test('a budget admits in order what fits, and a larger one alone', async () => {
  const budget = new ByteBudget(10)
  const admitted: string[] = []
  const take = (name: string, bytes: number, signal = never): Promise<unknown> =>
    budget.reserve(bytes, signal).then(
      () => admitted.push(name),
      () => admitted.push(`not ${name}`),
    )
  const stop = new AbortController()
  await take('a', 6)
  void take('large', 30, stop.signal)
  void take('b', 4) // would fit, and waits behind the large one
  await new Promise(setImmediate)
  assert.deepEqual(admitted, ['a'])
  stop.abort()
  await new Promise(setImmediate)
  assert.deepEqual(admitted.sort(), ['a', 'b', 'not large'])
  const larger = take('larger', 30)
  budget.release(6)
  await new Promise(setImmediate)
  assert.equal(admitted.length, 3)
  budget.release(4)
  await larger
  assert.equal(admitted.length, 4)
})

test('the buffer of an input comes back, and is used for the next one', async () => {
  const buffers = new InputBuffers()
  const pool = new ComputePool(threadOf(), 1)
  const first = task()
  const input = buffers.allocate(first.input.length)
  input.set(first.input)
  const made = await pool.run({ ...first, input }, never, nothing, nothing)
  assert.equal(input.length, 0) // it was handed over
  buffers.recycle(made.input)
  const next = buffers.allocate(first.input.length - 8)
  assert.equal(next.buffer, made.input)
  assert.equal(next.length, first.input.length - 8)
  assert.notEqual(buffers.allocate(8).buffer, made.input)
  pool.close()
})

test('buffers that no input is in are bounded, and fit', () => {
  const buffers = new InputBuffers()
  const large = Array.from({ length: 5 }, () => buffers.allocate(20 << 20).buffer)
  for (const each of large) buffers.recycle(each)
  assert.notEqual(buffers.allocate(1).buffer.byteLength, 20 << 20) // not for a byte
  const kept = Array.from({ length: 4 }, () => buffers.allocate(20 << 20).buffer)
  assert.deepEqual(
    kept.map((each) => large.indexOf(each)),
    [2, 3, 4, -1],
  )
})
