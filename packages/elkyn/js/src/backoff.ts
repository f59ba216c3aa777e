/** Delays between attempts to reach a server: exponential backoff with jitter. */

const FIRST_MS = 250
const MAX_MS = 15_000

export class Backoff {
  private failed = 0
  private endWait: () => void = () => undefined

  /** @param closed ends a wait when it aborts */
  constructor(private readonly closed: AbortSignal) {}

  /** Failed attempts since the last success. */
  get failures(): number {
    return this.failed
  }

  /** The milliseconds to wait after one more failure; jitter spreads clients that failed together. */
  nextMs(): number {
    const fullMs = Math.min(FIRST_MS * 2 ** this.failed, MAX_MS)
    this.failed += 1
    return fullMs * (0.5 + Math.random() / 2)
  }

  /** An attempt has succeeded: begin with the shortest delay after the next failure. */
  reset(): void {
    this.failed = 0
  }

  /** Wait; ends early when `closed` aborts, `retry` is called, or the network is back. */
  wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer)
        this.closed.removeEventListener('abort', end)
        globalThis.removeEventListener?.('online', end)
        resolve()
      }
      this.endWait = end
      const timer = setTimeout(end, ms)
      this.closed.addEventListener('abort', end)
      globalThis.addEventListener?.('online', end)
      if (this.closed.aborted) end()
    })
  }

  /** End the current wait. */
  retry(): void {
    this.endWait()
  }
}
