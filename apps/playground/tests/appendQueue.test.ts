import assert from 'node:assert/strict'
import { test } from 'node:test'

import { mayBeCommitted, mayRetry, removalOf, stateOf, type QueuedAppend } from '../lib/appendQueue'

const append = (state: string): QueuedAppend => ({
  id: '01',
  dataset: 'trips',
  datasetId: 'd',
  writer: 'w',
  user: 'ann',
  state,
  statement: 'INSERT INTO trips VALUES (1)',
  bytes: 0,
  queuedAt: 1,
  expiresAt: 2,
  error: null,
})

test('what was not committed can be queued again, and what was sent is removed with a warning', () => {
  const states = ['waiting', 'sent', 'refused', 'expired', 'unknown'].map(append)
  assert.deepEqual(states.map(mayRetry), [false, false, true, true, false])
  assert.deepEqual(states.map(mayBeCommitted), [false, true, false, false, true])
  assert.match(removalOf(append('sent')), /may be committed/)
  assert.match(removalOf(append('refused')), /not committed/)
})

test('a state of a later version is shown as it is', () => {
  assert.deepEqual(stateOf(append('paused')), { text: 'paused', tone: 'unknown' })
  assert.equal(stateOf(append('refused')).tone, 'bad')
})
