/** Web Locks: held until released, or until the page or worker that holds them is gone. */

/** A held or awaited lock; `release` releases it, or ends the wait for it. */
export interface Held {
  release(): void
}

/** Whether locks are supported: not in Node before 24, and not on pages without https. */
export const hasLocks = (): boolean => typeof navigator !== 'undefined' && 'locks' in navigator

/** Wait for lock `name`, call `held`, and keep the lock. */
export function holdLock(name: string, held: () => void = () => undefined): Held {
  let release: () => void = () => undefined
  const released = new Promise<void>((resolve) => (release = resolve))
  const waiting = new AbortController()
  navigator.locks
    .request(name, { signal: waiting.signal }, () => {
      held()
      return released
    })
    .catch(() => undefined) // the wait was ended, or the page is closing
  return {
    release: () => {
      waiting.abort()
      release()
    },
  }
}
