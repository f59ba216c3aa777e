'use client'

import { useLive, useNow } from '@/lib/hooks'
import { isLost, live, needsSignIn } from '@/lib/live'

/** Whether what the page shows is live, in a word. */
export function Connection() {
  const { connection } = useLive('/jobs')
  const now = useNow(isLost(connection) ? 500 : null)

  if (isLost(connection)) {
    const seconds = Math.max(0, Math.ceil((connection.retryAtMs - now) / 1000))
    const word = needsSignIn(connection)
      ? 'Not signed in'
      : seconds > 0
        ? `Offline, again in ${seconds} s`
        : 'Offline, trying'
    return (
      <button
        type="button"
        title="Try again now"
        className="text-bad bg-bad-soft mr-1 flex items-center gap-2 rounded-full px-2.5 py-1 text-xs font-medium"
        onClick={() => live.retry()}
      >
        <span aria-hidden className="bg-bad size-1.5 rounded-full" />
        <span className="max-sm:sr-only">{word}</span>
      </button>
    )
  }
  const isLive = connection.state === 'online'
  return (
    <span role="status" className="text-ink-2 mr-1 flex items-center gap-2 px-1.5 text-xs">
      <span
        aria-hidden
        className={`size-1.5 rounded-full ${isLive ? 'bg-good' : 'border-ink-3 border'}`}
      />
      <span className="max-sm:sr-only">{isLive ? 'Live' : 'Connecting'}</span>
    </span>
  )
}
