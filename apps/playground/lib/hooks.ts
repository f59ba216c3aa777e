'use client'

/** How components read stores, the live tree, requests and the clock. */

import { useCallback, useEffect, useState, useSyncExternalStore } from 'react'

import { asApiError, isAbort, type ApiError } from './api'
import type { LiveValue } from '@sennit/elkyn/live'

import { live } from './live'
import type { Store } from './store'

/** The value of a store. */
export function useStore<T>(store: Store<T>): T {
  return useSyncExternalStore(store.subscribe, store.get, store.get)
}

/** What an exported page was rendered with; React compares it with the value while it hydrates. */
const AT_EXPORT = live.get('/')

/** The live value at a path of the platform's tree. */
export function useLive(path: string): LiveValue {
  const subscribe = useCallback((listener: () => void) => live.subscribe(path, listener), [path])
  const get = () => live.get(path)
  return useSyncExternalStore(subscribe, get, () => AT_EXPORT)
}

/** A request's answer: exactly one of loading, ready and failed. `ready` survives a later failure as `stale`. */
export type Resource<T> =
  | { state: 'loading' }
  | { state: 'ready'; data: T; error: ApiError | null }
  | { state: 'failed'; error: ApiError }

/** Ask once, again whenever `key` changes or `reload` is called, and every `everyMs` while the page is seen. */
export function useResource<T>(
  key: string | null,
  ask: (signal: AbortSignal) => Promise<T>,
  everyMs?: number,
): Resource<T> & { reload: () => void } {
  const [answer, setAnswer] = useState<{ key: string | null; value: Resource<T> }>({
    key,
    value: { state: 'loading' },
  })
  const [round, setRound] = useState(0)
  const reload = useCallback(() => setRound((count) => count + 1), [])

  useEffect(() => {
    if (key === null) return
    const control = new AbortController()
    const refresh = () =>
      ask(control.signal).then(
        (data) => setAnswer({ key, value: { state: 'ready', data, error: null } }),
        (reason: unknown) => {
          if (control.signal.aborted || isAbort(reason)) return
          const error = asApiError(reason)
          setAnswer((last) => {
            const stale = last.key === key && last.value.state === 'ready'
            return {
              key,
              value: stale
                ? { ...(last.value as { state: 'ready'; data: T }), error }
                : { state: 'failed', error },
            }
          })
        },
      )
    void refresh()
    const timer = everyMs
      ? setInterval(() => !document.hidden && void refresh(), everyMs)
      : undefined
    return () => {
      control.abort()
      clearInterval(timer)
    }
    // `ask` is a new function on every render; `key` says when it means something else.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [key, round, everyMs])

  const value: Resource<T> = answer.key === key ? answer.value : { state: 'loading' }
  return { ...value, reload }
}

/** The time, renewed every `everyMs` (null: not at all); 0 until the page runs in a browser. */
export function useNow(everyMs: number | null): number {
  const [now, setNow] = useState(0)
  useEffect(() => {
    const tick = () => setNow(Date.now())
    tick()
    if (everyMs === null) return
    const timer = setInterval(tick, everyMs)
    return () => clearInterval(timer)
  }, [everyMs])
  return now
}

const noChange = () => () => undefined

/** False while the exported page is brought to life, then true: for what only a browser knows. */
export function useInBrowser(): boolean {
  return useSyncExternalStore(
    noChange,
    () => true,
    () => false,
  )
}

/** A change that the user has asked for: whether it runs, and how the last one failed. */
export function useAction(): {
  busy: boolean
  error: ApiError | null
  run: (work: () => Promise<unknown>, onDone?: () => void) => void
} {
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<ApiError | null>(null)
  const run = useCallback((work: () => Promise<unknown>, onDone?: () => void) => {
    setBusy(true)
    setError(null)
    work()
      .then(
        () => onDone?.(),
        (reason: unknown) => !isAbort(reason) && setError(asApiError(reason)),
      )
      .finally(() => setBusy(false))
  }, [])
  return { busy, error, run }
}
