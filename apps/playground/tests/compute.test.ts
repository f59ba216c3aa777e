import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  controlsOf,
  DEFAULT_RULES,
  mayJoinAgain,
  pauseReason,
  readRules,
} from '../lib/computeRules'
import { trustText } from '../lib/workers'

const plain = { isHidden: false, isOnBattery: null, isMetered: null }

test('a tab pauses for what its user does not allow, and for nothing that is not known', () => {
  const rules = { ...DEFAULT_RULES, whileHidden: false }
  assert.equal(pauseReason(rules, plain, false), null)
  assert.equal(pauseReason(rules, plain, true), 'by you')
  assert.equal(pauseReason(rules, { ...plain, isOnBattery: true }, false), 'on battery')
  assert.equal(pauseReason(rules, { ...plain, isMetered: true }, false), 'metered network')
  assert.equal(pauseReason(rules, { ...plain, isHidden: true }, false), 'tab hidden')
  const all = { ...rules, onBattery: true, onMetered: true, whileHidden: true }
  const worst = { isHidden: true, isOnBattery: true, isMetered: true }
  assert.equal(pauseReason(all, worst, false), null)
})

test('stored rules are read as far as they are valid', () => {
  assert.deepEqual(readRules(null), DEFAULT_RULES)
  assert.deepEqual(readRules('[1'), DEFAULT_RULES)
  assert.deepEqual(readRules('null'), DEFAULT_RULES)
  const rules = { ...DEFAULT_RULES, sharePercent: 20, capMebibytes: 0, onBattery: true }
  assert.deepEqual(readRules(JSON.stringify(rules)), rules)
  const wrong = { sharePercent: 0, capMebibytes: -1, onBattery: 'yes', whileHidden: 1 }
  assert.deepEqual(readRules(JSON.stringify(wrong)), DEFAULT_RULES)
})

test('limits are those of the worker: a share of time, and bytes', () => {
  assert.deepEqual(controlsOf({ ...DEFAULT_RULES, sharePercent: 25, capMebibytes: 2 }), {
    share: 0.25,
    bytesMax: 2 << 20,
    inputBytesMax: 256 << 20,
  })
  assert.equal(controlsOf({ ...DEFAULT_RULES, capMebibytes: 0 }).bytesMax, Infinity)
})

test('a tab joins again when its token has expired, not when it is refused at once', () => {
  const refused = 'the token is not admitted (4403)'
  assert.equal(mayJoinAgain(refused, 0, 43_200_000), true)
  assert.equal(mayJoinAgain(refused, 0, 5_000), false)
  assert.equal(mayJoinAgain('stopped', 0, 43_200_000), false)
})

test('how results are checked is a sentence with the share', () => {
  const report = { trust: 'sample', sampleShare: 0.07, workers: [], excluded: [] } as const
  assert.match(trustText({ ...report, workers: [], excluded: [] }), /computes 7 % of the tasks/)
  assert.match(trustText({ trust: 'trust', sampleShare: 0, workers: [], excluded: [] }), /trusted/)
})
