/** Retries of requests: with growing delays, and without end to their number while there is no network. */

import { UploadError } from '../errors.ts'
import type { Connectivity } from './connectivity.ts'
import { abortError } from './pool.ts'

/** Exponential backoff: delays double from `firstMs` up to `maxMs`. */
export interface RetryPolicy {
  /** How many times in a row a request may fail that the node answers, as one that is busy does. */
  attempts: number
  firstMs: number
  maxMs: number
  /** How long a started upload waits for a node that does not answer, as one that restarts. */
  unreachableMs: number
}

/** A node deletes an upload without a new part after 24 hours, so waiting any longer is in vain. */
export const DEFAULT_RETRY: RetryPolicy = {
  attempts: 8,
  firstMs: 500,
  maxMs: 30_000,
  unreachableMs: 24 * 3600 * 1000,
}

/** Source of time; tests inject one. */
export interface UploadClock {
  nowMs(): number
  sleep(ms: number, signal: AbortSignal): Promise<void>
}

/**
 * Milliseconds to wait after the `failures`-th consecutive failure.
 * `random` in [0, 1) spreads clients over the upper half of the delay ("equal jitter").
 */
export function retryDelay(
  failures: number,
  policy: RetryPolicy = DEFAULT_RETRY,
  random: number = Math.random(),
): number {
  const full = Math.min(policy.maxMs, policy.firstMs * 2 ** (failures - 1))
  return Math.round(full / 2 + (full / 2) * random)
}

/** What an upload's requests report. */
export interface RetryListener {
  /** All requests wait: until `retryAtMs`, or for the network if that is null. */
  onWait(error: UploadError, retryAtMs: number | null): void
  onRetry(): void
}

/** Runs the requests of one upload, several at once. */
export class Retries {
  /** Requests in progress, and how many of them wait for their next attempt. */
  private calls = 0
  private waits = 0

  constructor(
    private readonly policy: RetryPolicy,
    private readonly clock: UploadClock,
    private readonly connectivity: Connectivity,
  ) {}

  /**
   * Run a request until it succeeds.
   *
   * `patient` waits for a node that does not answer; else it counts as one that refuses.
   *
   * @throws UploadError that is not retryable, or the last one when retries end; AbortError.
   */
  async run<T>(
    action: () => Promise<T>,
    signal: AbortSignal,
    listener: RetryListener,
    patient: boolean,
  ): Promise<T> {
    this.calls += 1
    const beganMs = this.clock.nowMs()
    try {
      for (let failures = 1; ; failures += 1) {
        try {
          return await action()
        } catch (error) {
          if (signal.aborted || !(error instanceof UploadError) || !error.retryable) throw error
          if (!this.connectivity.online()) {
            await this.wait(OFFLINE, null, signal, listener)
            failures = 0
            continue
          }
          const waitsOn =
            failures < this.policy.attempts ||
            (patient &&
              error.unreachable &&
              this.clock.nowMs() - beganMs < this.policy.unreachableMs)
          if (!waitsOn) throw error
          await this.wait(error, retryDelay(failures, this.policy), signal, listener)
        }
      }
    } finally {
      this.calls -= 1
    }
  }

  /** Other parts may still be in transfer: the upload waits only when all requests do. */
  private async wait(
    error: UploadError,
    delayMs: number | null,
    signal: AbortSignal,
    listener: RetryListener,
  ): Promise<void> {
    this.waits += 1
    if (this.waits === this.calls)
      listener.onWait(error, delayMs === null ? null : this.clock.nowMs() + delayMs)
    try {
      await this.pause(delayMs, signal)
    } finally {
      this.waits -= 1
    }
    if (signal.aborted) throw abortError()
    listener.onRetry()
  }

  /** The delay, or less if the network comes back; without a delay just that. */
  private async pause(delayMs: number | null, signal: AbortSignal): Promise<void> {
    const woken = new AbortController()
    const wake = () => woken.abort()
    const ended = new Promise<void>((resolve) =>
      woken.signal.addEventListener('abort', () => resolve()),
    )
    const stopListening = this.connectivity.onOnline(wake)
    signal.addEventListener('abort', wake, { once: true })
    if (signal.aborted) wake()
    try {
      await (delayMs === null ? ended : this.clock.sleep(delayMs, woken.signal))
    } finally {
      stopListening()
      signal.removeEventListener('abort', wake)
    }
  }
}

const OFFLINE = new UploadError('This computer is offline.', {
  code: 'offline',
  status: 0,
  hint: 'The upload goes on as soon as there is a network.',
})

/** The time of this machine; stays right when its clock is set. */
export const SYSTEM_CLOCK: UploadClock = {
  nowMs: () => performance.timeOrigin + performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve()
      const timer = setTimeout(resolve, ms)
      signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true })
    }),
}
