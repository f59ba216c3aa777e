import assert from 'node:assert/strict'
import { test } from 'node:test'

import { RateMeter } from '../src/uploads/rate.ts'
import { retryDelay } from '../src/uploads/retry.ts'

test('a steady transfer has its rate and the time that is left', () => {
  const meter = new RateMeter()
  for (let second = 0; second <= 5; second += 1) meter.record(second * 1000, second * 1000)
  assert.equal(meter.bytesPerSecond(), 1000)
  assert.equal(meter.secondsLeft(2500), 2.5)
})

test('one sample says nothing', () => {
  const meter = new RateMeter()
  meter.record(0, 0)
  assert.equal(meter.bytesPerSecond(), null)
  assert.equal(meter.secondsLeft(10), null)
})

test('a stall shows once the window has passed', () => {
  const meter = new RateMeter(2000)
  meter.record(0, 0)
  meter.record(8000, 1000)
  meter.record(8000, 2000)
  meter.record(8000, 3000)
  meter.record(8000, 4000)
  assert.equal(meter.bytesPerSecond(), 0)
  assert.equal(meter.secondsLeft(10), null)
})

test('an empty rest needs no time', () => {
  assert.equal(new RateMeter().secondsLeft(0), 0)
})

test('a part that is sent again never makes the rate negative', () => {
  const meter = new RateMeter()
  meter.record(5000, 0)
  meter.record(1000, 1000)
  assert.equal(meter.bytesPerSecond(), 0)
})

test('retries double their delay, and stay below the maximum', () => {
  const policy = { attempts: 5, firstMs: 100, maxMs: 300, unreachableMs: 0 }
  const delays = [1, 2, 3, 4, 5].map((failures) => retryDelay(failures, policy, 0.999999))
  assert.deepEqual(delays, [100, 200, 300, 300, 300])
  assert.equal(retryDelay(1, policy, 0), 50)
})
