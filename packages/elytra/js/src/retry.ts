/** How long to wait before a part is tried again. */

/** Backoff of a retry: the delay doubles from `firstMs` up to `maxMs`, and gives up after `attempts`. */
export interface RetryPolicy {
  attempts: number
  firstMs: number
  maxMs: number
}

export const DEFAULT_RETRY: RetryPolicy = { attempts: 8, firstMs: 500, maxMs: 30_000 }

/**
 * Milliseconds to wait after the `failures`-th failure in a row, or null to give up.
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
