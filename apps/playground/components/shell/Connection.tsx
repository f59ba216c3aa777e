'use client'

import { useLive, useNow } from '@/lib/hooks'
import { live } from '@/lib/live/client'

/** Whether what the page shows is live, in a word. */
export function Connection() {
  const { status } = useLive('/jobs')
  const now = useNow(status.state === 'lost' ? 500 : null)

  if (status.state === 'lost') {
    const seconds = Math.max(0, Math.ceil((status.retryAtMs - now) / 1000))
    const word =
      status.reason === 'unauthenticated'
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
  const isLive = status.state === 'live'
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
