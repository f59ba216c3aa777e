import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  axisEnd,
  FIGURES,
  History,
  linesOf,
  parseMetrics,
  short,
} from '../../src/elkyn/dashboard/figures.js'

const index = (name: string) => FIGURES.findIndex((figure) => figure.name === name)
const page = (reads: number, commits = 0) =>
  parseMetrics(
    `# HELP elkyn_reads_total Reads.\nelkyn_connections{kind="http"} 2\nelkyn_connections{kind="sse"} 1\nelkyn_reads_total ${reads}\nelkyn_commits_total ${commits}\nelkyn_commit_seconds_total ${commits / 100}\n`,
  )

test('gauges are known at once, rates from the second sample on', () => {
  const history = new History()
  history.add(1000, page(5))
  history.add(3000, page(25, 4))
  const [first, second] = history.samples
  assert.equal(first?.values[index('Connections')], 3)
  assert.equal(first?.values[index('Event streams')], 1)
  assert.equal(first?.values[index('Reads')], null)
  assert.equal(second?.values[index('Reads')], 10)
  assert.equal(second?.values[index('Commit')], 10)
})

test('a restart of the server, or an answer that did not come, leaves a gap', () => {
  const history = new History()
  history.add(0, page(5))
  history.add(1000, page(9))
  history.add(2000, page(1)) // started again
  history.add(3000, page(2))
  history.interrupt(4000)
  history.interrupt(5000)
  history.add(6000, page(3))
  history.add(7000, page(5))
  const reads = history.samples.map(({ values }) => values[index('Reads')])
  assert.deepEqual(reads, [null, 4, null, 1, null, null, 2])
  const lines = linesOf(history.samples, index('Reads'), 7000, 10_000, 4)
  assert.deepEqual(lines, [[[400, 0]], [[600, 75]], [[1000, 50]]])
})

test('what is older than the longest span is forgotten', () => {
  const history = new History()
  for (let minute = 0; minute < 100; minute += 1) history.add(minute * 60_000, page(minute))
  assert.equal(history.samples.length, 62)
  assert.equal(history.samples[0]?.at, 38 * 60_000)
})

test('an axis ends at a round number whose half is round too', () => {
  const ends = [0, 0.3, 1, 3, 5, 7, 10, 11, 399, 401, 1e6].map((most) => axisEnd(most))
  assert.deepEqual(ends, [1, 0.4, 1, 4, 6, 8, 10, 20, 400, 600, 1e6])
  assert.deepEqual([0, 1, 2, 3].map((most) => axisEnd(most, 2)), [2, 2, 2, 4]) // prettier-ignore
})

test('numbers are short', () => {
  const shown = [0, 0.25, 3.14159, 12.7, 9999, 12_345, 4_567_890, 2e12].map((each) => short(each))
  assert.deepEqual(shown, ['0', '0.3', '3.1', '13', '9,999', '12.3k', '4.57M', '2T'])
  assert.equal(short(1.2345, 2), '1.23')
})
