/** The state of a job from the events of the node's tree, in place of requests for it. */

/** A record of a job as the tree has it at `/jobs/{id}`. */
export interface FollowedRecord {
  state: string
  progress?: unknown
}

/** The part of `LiveValues` of `@sennit/elkyn/live`, with the namespace `sys`, that jobs use. */
export interface LiveTree {
  get(path: string): {
    readonly value: unknown
    readonly isKnown: boolean
    readonly connection: { readonly state: string }
  }
  subscribe(path: string, listener: () => void): () => void
}

/** A proxy that holds events back must not hold up a job: after this the job is asked for. */
const FIRST_EVENT_MS = 5_000
const ID = /^[\w-]+$/
const LOST = ['offline', 'refused']

/**
 * Hear each change of a job until `isOver` says so of its record.
 *
 * Returns early if the tree has no such job, or its events do not arrive: the caller asks the node.
 *
 * @throws the signal's reason if it aborts.
 */
export function follow(
  live: LiveTree,
  id: string,
  isOver: (record: FollowedRecord) => boolean,
  signal?: AbortSignal,
): Promise<void> {
  const path = `/jobs/${id}`
  if (signal?.aborted) return Promise.reject(signal.reason as Error)
  if (!ID.test(id)) return Promise.resolve() // the node says what is wrong with it
  return new Promise((resolve, reject) => {
    let isOpen = true
    let unsubscribe: () => void = () => undefined
    const end = (settle: () => void): void => {
      isOpen = false
      clearTimeout(timer)
      signal?.removeEventListener('abort', aborted)
      unsubscribe()
      settle()
    }
    const aborted = (): void => end(() => reject(signal?.reason as Error))
    const look = (): void => {
      if (!isOpen) return
      const { value, isKnown, connection } = live.get(path)
      if (LOST.includes(connection.state)) return end(resolve)
      if (connection.state === 'online' && isKnown) clearTimeout(timer)
      try {
        if (isKnown && (!isRecord(value) || isOver(value))) end(resolve)
      } catch (error) {
        end(() => reject(error as Error)) // of the caller's `onProgress`
      }
    }
    const timer = setTimeout(() => end(resolve), FIRST_EVENT_MS)
    signal?.addEventListener('abort', aborted, { once: true })
    unsubscribe = live.subscribe(path, look)
    look() // another subscriber may have the value already
  })
}

function isRecord(value: unknown): value is FollowedRecord {
  return (
    typeof value === 'object' &&
    value !== null &&
    typeof (value as { state?: unknown }).state === 'string'
  )
}
