import assert from 'node:assert/strict'
import test from 'node:test'

import { Elytra } from '../src/client/elytra.ts'
import type { LiveTree } from '../src/client/follow.ts'
import type { JobProgress } from '../src/client/job.ts'
import { type JobFailed } from '../src/errors.ts'

const PROGRESS = { done: 1, total: 4, bytesDone: 10, bytesTotal: 40, rows: 3 }

/** A tree whose value a test sets; `requests` are those for the job. */
class World implements LiveTree {
  requests = 0
  private state: ReturnType<LiveTree['get']> = {
    value: null,
    isKnown: false,
    connection: { state: 'connecting' },
  }
  readonly listeners = new Set<() => void>()

  constructor(private readonly record: object) {}

  get(): ReturnType<LiveTree['get']> {
    return this.state
  }

  subscribe(path: string, listener: () => void): () => void {
    assert.equal(path, '/jobs/job_1')
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  change(state: Partial<ReturnType<LiveTree['get']>>): void {
    this.state = { ...this.state, ...state }
    for (const listener of [...this.listeners]) listener()
  }

  job() {
    const fetch = (): Promise<Response> => {
      this.requests += 1
      return Promise.resolve(Response.json(this.record))
    }
    return new Elytra({ fetch, live: this }).job('job_1')
  }
}

function online(state: string): Partial<ReturnType<LiveTree['get']>> {
  return { value: { state, progress: PROGRESS }, isKnown: true, connection: { state: 'online' } }
}

test('a job is followed by events, and the node is asked once at its end', async () => {
  const world = new World({ id: 'job_1', state: 'failed', error: { error: 'no', code: 'busy' } })
  const seen: JobProgress[] = []
  const waiting = world.job().wait({ onProgress: (progress) => seen.push(progress) })
  world.change(online('running'))
  assert.equal(world.requests, 0)
  world.change(online('failed'))
  await assert.rejects(waiting, (error: JobFailed) => error.code === 'busy')
  assert.deepEqual([world.requests, world.listeners.size], [1, 0])
  assert.deepEqual(seen, [
    { ...PROGRESS, state: 'running' },
    { ...PROGRESS, state: 'failed' },
  ])
})

test('a tree that is lost, refused or without the job: the node is asked', async () => {
  for (const change of [
    { connection: { state: 'offline' } },
    { connection: { state: 'refused' } },
    { value: null, isKnown: true },
  ]) {
    const world = new World({ id: 'job_1', state: 'done' })
    const waiting = world.job().wait()
    world.change(change)
    await waiting
    assert.deepEqual([world.requests, world.listeners.size], [1, 0])
  }
})

test('an abort, and an error of the listener, end the wait', async () => {
  const stop = new AbortController()
  const world = new World({ id: 'job_1', state: 'running' })
  const waiting = world.job().wait({ signal: stop.signal })
  stop.abort()
  await assert.rejects(waiting, { name: 'AbortError' })
  const again = world.job().wait({
    onProgress: () => {
      throw new RangeError('mine')
    },
  })
  world.change(online('running'))
  await assert.rejects(again, RangeError)
  assert.equal(world.listeners.size, 0)
})
