import assert from 'node:assert/strict'
import { mock, test } from 'node:test'

import { Backoff } from '../src/backoff.ts'

test('delays grow, up to a limit, and start again after a success', () => {
  const backoff = new Backoff(new AbortController().signal)
  const delays = Array.from({ length: 40 }, () => backoff.nextMs())
  assert.ok(delays.every((ms) => ms >= 125 && ms <= 15_000))
  assert.ok(delays[10]! > delays[0]!)
  assert.equal(backoff.failures, 40)
  backoff.reset()
  assert.ok(backoff.nextMs() <= 250)
})

test('a wait ends after its time, on retry, or when its owner closes', async () => {
  mock.timers.enable({ apis: ['setTimeout'] })
  const closed = new AbortController()
  const backoff = new Backoff(closed.signal)
  const [timed, retried, aborted] = [
    () => mock.timers.tick(100),
    () => backoff.retry(),
    () => closed.abort(),
  ]
  for (const end of [timed, retried, aborted]) {
    const wait = backoff.wait(100)
    end()
    await wait
  }
  await backoff.wait(100) // closed: no wait at all
  mock.timers.reset()
})
