import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  checkOf,
  fractionOf,
  hasEnded,
  jobsOf,
  phaseOf,
  sentence,
  sourceOf,
  tasksOfJob,
  titleOf,
  troubleOf,
} from '../lib/jobs'
import type { JobState } from '../lib/records'

const progress = { done: 0, bytesDone: 0, rows: 0, memoryBytes: 0, spilledBytes: 0, phase: '' }

test('jobs come newest first with their tasks in shard order', () => {
  const tree = {
    a: { id: 'a', state: 'done', createdAt: 1 },
    b: {
      id: 'b',
      state: 'running',
      createdAt: 2,
      tasks: { t000001: { state: 'running' }, t000000: { state: 'done' } },
    },
  }
  const jobs = jobsOf(tree)
  assert.deepEqual(
    jobs.map((job) => job.id),
    ['b', 'a'],
  )
  assert.deepEqual(
    jobs[0]!.tasks.map((task) => task.id),
    ['t000000', 't000001'],
  )
})

test('an empty tree has no jobs', () => {
  assert.deepEqual(jobsOf(null), [])
})

test('only a job that is done is at 1', () => {
  const full = { ...progress, bytesDone: 10, bytesTotal: 10 }
  assert.equal(fractionOf({ state: 'running', progress: full, tasks: [] }), 0.99)
  assert.equal(fractionOf({ state: 'done', progress: full, tasks: [] }), 1)
  assert.equal(
    fractionOf({ state: 'running', progress: { ...progress, bytesDone: 5 }, tasks: [] }),
    null,
  )
})

test('progress is the further of bytes and tasks', () => {
  const half = { ...progress, done: 1, total: 4, bytesDone: 50, bytesTotal: 100 }
  assert.equal(fractionOf({ state: 'running', progress: half, tasks: [] }), 0.5)
})

test('three states are ends', () => {
  const states: JobState[] = ['queued', 'running', 'merging', 'done', 'failed', 'cancelled']
  assert.deepEqual(
    states.filter((state) => hasEnded({ state })),
    ['done', 'failed', 'cancelled'],
  )
})

test('a running job says its phase', () => {
  assert.equal(
    phaseOf({ state: 'running', progress: { ...progress, phase: 'write-shards' } }),
    'Write shards',
  )
  assert.equal(phaseOf({ state: 'queued', progress: null }), 'Waiting for a place')
})

test('errors are shown in words, with a fix', () => {
  const trouble = troubleOf({
    error: '64 MiB were not enough',
    code: 'memory-cap-exceeded',
    hint: 'Raise the cap.',
  })
  assert.deepEqual(trouble, {
    title: 'The memory cap was reached',
    message: '64 MiB were not enough',
    hint: 'Raise the cap.',
  })
  assert.equal(troubleOf('it broke')?.message, 'it broke')
  assert.equal(troubleOf(null), null)
})

test('a job is called after what it works on', () => {
  const names = new Map([['d1', 'flights']])
  const files = new Map([['j2', 'planes.csv']])
  const plan = { op: 'aggregate', input: { op: 'scan', source: { dataset: 'd1' } } }
  assert.equal(sourceOf(plan), 'd1')
  assert.equal(titleOf({ id: 'j1', kind: 'plan', plan }, names, files), 'Pipeline over flights')
  assert.equal(titleOf({ id: 'j2', kind: 'ingest' }, names, files), 'Read in planes.csv')
  assert.equal(
    titleOf({ id: 'j3', kind: 'ingest', result: { dataset: 'd1' } }, names, files),
    'Read in flights',
  )
  assert.equal(titleOf({ id: 'j4', kind: 'ingest' }, names, files), 'Read in an upload')
  const failed = { id: 'j5', kind: 'ingest', result: { file: 'ships.csv' } }
  assert.equal(titleOf(failed, names, files), 'Read in ships.csv')
})

test('finished tasks count before the progress includes them', () => {
  const task = { id: 't000000', job: 'j', attempts: 1 }
  const tasks = [
    { ...task, state: 'done' as const },
    { ...task, id: 't000001', state: 'done' as const },
    { ...task, id: 't000002', state: 'running' as const },
  ]
  const slow = { ...progress, done: 0, total: 4, bytesDone: 1, bytesTotal: 100 }
  assert.deepEqual(tasksOfJob({ state: 'running', progress: slow, tasks }), { done: 2, total: 4 })
  assert.equal(fractionOf({ state: 'running', progress: slow, tasks }), 0.5)
})

test('messages become sentences, names stay as they are', () => {
  assert.equal(sentence('there is no column "x"'), 'There is no column "x"')
  assert.equal(sentence('flights.csv: line 3'), 'flights.csv: line 3')
})

test('a job with rows of a wrong worker says how they are checked', () => {
  const check = { state: 'corrected', token: 't', since: 1, savedAs: ['tops', 'sums'] }
  const found = checkOf({ check })
  assert.equal(found?.isGood, false)
  assert.match(found?.text ?? '', /right ones\. Datasets .*: tops, sums\.$/)
  assert.equal(checkOf({ check: { state: 'confirmed', token: 't', since: 1 } })?.isGood, true)
  assert.match(
    checkOf({ check: { state: 'failed', token: 't', since: 1, reason: 'it is gone' } })?.text ?? '',
    /It is gone\.$/,
  )
  assert.equal(checkOf({ check: null }), null)
})
