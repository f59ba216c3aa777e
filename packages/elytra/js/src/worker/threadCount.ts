/** How many tasks a worker computes at the same time. */

/** A `hello` names at most 64 attempts, of which one waits. */
export const THREADS_MAX = 63

/** One less than the machine has cores: that one is for the page, or the rest of the machine. */
export function defaultThreads(): number {
  const cores = globalThis.navigator?.hardwareConcurrency ?? 2
  return Math.min(THREADS_MAX, Math.max(1, cores - 1))
}
