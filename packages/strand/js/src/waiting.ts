/** Sleeping on a shared word: in a Worker by blocking, on a page by promise, anywhere by polling. */

/** How long a wait sleeps before it checks its condition again; wake-ups do not depend on it. */
export const NAP_MS = 150

const YIELDS = 64 // polls without a timer before the first nap of a millisecond
const POLL_MS_MAX = 8

/** ES2024; older browsers and type libraries do not have it. */
type WaitAsync = (
  words: Int32Array,
  index: number,
  seen: number,
  ms: number,
) => { async: false } | { async: true; value: Promise<unknown> }

let blocking: boolean | undefined

/** Whether this thread may block: Workers and Node may, a page may not. */
export function canBlock(): boolean {
  if (blocking === undefined) {
    try {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 0)
      blocking = true
    } catch {
      blocking = false
    }
  }
  return blocking
}

/** Block while the word at byte `at` is `seen`, for `ms` at most. */
export function sleepHere(words: Int32Array, at: number, seen: number, ms: number): void {
  Atomics.wait(words, at >>> 2, seen, ms)
}

/** Resolve once the word at byte `at` differs from `seen` or `ms` have passed. */
export async function sleep(
  words: Int32Array,
  at: number,
  seen: number,
  ms: number,
): Promise<void> {
  const { waitAsync } = Atomics as { waitAsync?: WaitAsync }
  if (waitAsync === undefined) return poll(words, at, seen, ms)
  const waiting = waitAsync(words, at >>> 2, seen, ms)
  if (!waiting.async) return
  // Node exits while only such a promise is pending; the timer keeps the process alive.
  const timer = setInterval(() => undefined, 1000)
  await waiting.value
  clearInterval(timer)
}

/** A shared word, by byte offset, and the value at which a sleeper continues to sleep. */
export interface Bell {
  readonly at: number
  readonly seen: number
}

/** Resolve once one of the words has changed or was notified, or `ms` have passed. */
export async function sleepUntilAny(
  words: Int32Array,
  bells: readonly Bell[],
  ms: number,
): Promise<void> {
  await Promise.race(bells.map(({ at, seen }) => sleep(words, at, seen, ms)))
}

async function poll(words: Int32Array, at: number, seen: number, ms: number): Promise<void> {
  const until = performance.now() + ms
  for (let polls = 0; Atomics.load(words, at >>> 2) === seen; polls += 1) {
    const left = until - performance.now()
    if (left <= 0) return
    if (polls < YIELDS) await yieldToEvents()
    else
      await new Promise((done) => setTimeout(done, Math.min(1 + polls - YIELDS, POLL_MS_MAX, left)))
  }
}

/** Let other events run, without the minimum delay that browsers give to timers. */
function yieldToEvents(): Promise<void> {
  return new Promise((done) => {
    if (typeof setImmediate === 'function') return void setImmediate(done)
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => {
      port1.close()
      done()
    }
    port2.postMessage(null)
  })
}
