'use client'

import { Unplug } from 'lucide-react'

import { useLive, useNow } from '@/lib/hooks'
import { isLost, live, needsSignIn } from '@/lib/live'

import { MemoryCard } from './MemoryCard'
import { RecentQueries } from './RecentQueries'
import { RunningJobs } from './RunningJobs'
import { Steps } from './Steps'

/** Where to begin, and what is going on. */
export function HomePage() {
  const { isKnown, connection } = useLive('/jobs')
  if (!isKnown && isLost(connection) && !needsSignIn(connection))
    return <Unreachable retryAtMs={connection.retryAtMs} />
  return (
    <div className="mx-auto w-full max-w-6xl flex-1 px-4 py-8 sm:px-6">
      <h1 className="sr-only">Home</h1>
      <Steps />
      <div className="mt-6 grid gap-4 lg:grid-cols-2">
        <RunningJobs />
        <MemoryCard />
        <div className="lg:col-span-2">
          <RecentQueries />
        </div>
      </div>
    </div>
  )
}

function Unreachable({ retryAtMs }: { retryAtMs: number }) {
  const now = useNow(250)
  const seconds = Math.max(0, Math.ceil((retryAtMs - now) / 1000))
  return (
    <div className="grid flex-1 place-items-center px-4 py-16">
      <div className="max-w-md text-center">
        <Unplug size={26} aria-hidden className="text-bad mx-auto mb-4" />
        <h1 className="text-lg font-semibold">The node cannot be reached</h1>
        <p className="text-ink-2 mt-1.5 text-pretty">
          Nothing answers at{' '}
          {typeof window === 'undefined' ? (
            'its address'
          ) : (
            <code className="text-ink font-mono">{window.location.host}</code>
          )}
          . Start it with <code className="text-ink font-mono">platform up</code>, or see what
          happened with <code className="text-ink font-mono">platform logs</code>.
        </p>
        <p role="timer" className="text-ink-2 mt-5">
          {now === 0 || seconds > 0 ? `Trying again in ${seconds} s` : 'Trying again…'}
        </p>
        <button type="button" className="button mt-3" onClick={() => live.retry()}>
          Try now
        </button>
      </div>
    </div>
  )
}
