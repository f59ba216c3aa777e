import assert from 'node:assert/strict'
import { test } from 'node:test'

import { formatBytes } from '../lib/format'
import { bySize, limitsOf } from '../lib/storage'

const usage = (name: string, storedBytes: number) => ({
  id: name,
  name,
  owner: '',
  rows: 0,
  bytes: 0,
  storedBytes,
  reclaimableBytes: 0,
  shards: 0,
  smallShards: 0,
  versions: 1,
})

test('the largest dataset comes first, equal ones by name', () => {
  const given = [usage('b', 1), usage('a', 1), usage('c', 2)]
  assert.deepEqual(
    bySize(given).map(({ name }) => name),
    ['c', 'a', 'b'],
  )
  assert.equal(given[0]?.name, 'b')
})

test('a quota shows the limits that it has', () => {
  const none = { user: 'ada', diskBytes: 0, memoryBytes: 0, statements: 0, statementsPerMinute: 0 }
  assert.deepEqual(limitsOf(none, formatBytes), [])
  assert.deepEqual(limitsOf({ ...none, diskBytes: 1 << 30, statements: 2 }, formatBytes), [
    '1.0 GiB stored',
    '2 statements at once',
  ])
})
