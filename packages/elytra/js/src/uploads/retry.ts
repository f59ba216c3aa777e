/** Delays between the retries of a part. */

/** Exponential backoff: delays double from `firstMs` up to `maxMs`, at most `attempts` times. */
export interface RetryPolicy {
  attempts: number
  firstMs: number
  maxMs: number
}

export const DEFAULT_RETRY: RetryPolicy = { attempts: 8, firstMs: 500, maxMs: 30_000 }

/**
 * Milliseconds to wait after the `failures`-th consecutive failure, or null to stop retrying.
 * `random` in [0, 1) spreads clients over the upper half of the delay ("equal jitter").
 */
export function retryDelay(
  failures: number,
  policy: RetryPolicy = DEFAULT_RETRY,
  random: number = Math.random(),
): number | null {
  if (failures >= policy.attempts) return null
  const full = Math.min(policy.maxMs, policy.firstMs * 2 ** (failures - 1))
  return Math.round(full / 2 + (full / 2) * random)
}
