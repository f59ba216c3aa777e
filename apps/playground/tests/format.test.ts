import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  formatAgo,
  formatBytes,
  formatCell,
  formatElapsed,
  formatPercent,
  formatTimeLeft,
  plural,
  timeMs,
} from '../lib/format'

test('bytes keep at most four characters of number, in binary units', () => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 KiB'],
    [1536, '1.5 KiB'],
    [1024 ** 2 - 1, '1.0 MiB'],
    [16 * 1024 ** 2, '16.0 MiB'],
    [150 * 1024 ** 2, '150 MiB'],
    [2.5 * 1024 ** 3, '2.5 GiB'],
  ]
  for (const [bytes, text] of cases) assert.equal(formatBytes(bytes), text)
  assert.equal(formatBytes(null), '–')
})

test('a percentage is 100 only when everything is done', () => {
  assert.equal(formatPercent(0.9999), '99 %')
  assert.equal(formatPercent(1), '100 %')
  assert.equal(formatPercent(1.7), '100 %')
  assert.equal(formatPercent(-1), '0 %')
})

test('durations grow their unit without ever showing 60', () => {
  const cases: [number, string][] = [
    [0.0004, '0 ms'],
    [0.25, '250 ms'],
    [0.9996, '1.0 s'],
    [59.96, '1 min 00 s'],
    [245, '4 min 05 s'],
    [7380, '2 h 03 min'],
  ]
  for (const [seconds, text] of cases) assert.equal(formatElapsed(seconds), text)
})

test('time left is rough on purpose', () => {
  assert.equal(formatTimeLeft(null), 'working out the time')
  assert.equal(formatTimeLeft(2), 'a few seconds')
  assert.equal(formatTimeLeft(17), 'about 20 s')
  assert.equal(formatTimeLeft(130), 'about 3 min')
})

test('times of records are seconds or text, and may be absent', () => {
  assert.equal(timeMs(1.5), 1500)
  assert.equal(timeMs('1970-01-01T00:00:02Z'), 2000)
  assert.equal(timeMs(null), null)
  assert.equal(timeMs('soon'), null)
})

test('how long ago, in words', () => {
  const minute = 60_000
  assert.equal(formatAgo(0, 10_000), 'just now')
  assert.equal(formatAgo(0, 4 * minute), '4 min ago')
  assert.equal(formatAgo(0, 180 * minute), '3 h ago')
  assert.equal(formatAgo(0, 30 * 60 * minute), 'yesterday')
})

test('words agree with their count', () => {
  assert.equal(plural(1, 'row'), '1 row')
  assert.equal(plural(336776, 'row'), '336,776 rows')
  assert.equal(plural(2, 'query', 'queries'), '2 queries')
})

test('cells show values as they are, structures as JSON', () => {
  assert.equal(formatCell(null), 'NULL')
  assert.equal(formatCell('NaN'), 'NaN')
  assert.equal(formatCell(true), 'true')
  assert.equal(formatCell({ a: [1] }), '{"a":[1]}')
})
