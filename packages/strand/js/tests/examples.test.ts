/** The example programs do what they say. */

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'

import { readWithTwoConsumers } from '../examples/two-consumers.js'

test('one view with two consumers of its own reads every record', async () => {
  const outcome = await readWithTwoConsumers(join(__dirname, '../examples/two-consumers.js'))
  assert.deepEqual(
    outcome.labels,
    Array.from({ length: 30 }, (_, n) => `type-${'ab'[n % 2]} record ${n}`),
  )
  assert.equal(outcome.scoreSum, (29 * 30) / 4)
  assert.equal(outcome.progress, 1)
})
