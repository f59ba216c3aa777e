'use client'

import Link from 'next/link'
import { useMemo } from 'react'

import { useTitles } from '@/components/jobs/useTitles'
import { Progress } from '@/components/ui/Bar'
import { StateChip } from '@/components/ui/StateChip'
import { Loading } from '@/components/ui/States'
import { formatAgo, formatPercent, timeMs } from '@/lib/format'
import { useLive, useNow } from '@/lib/hooks'
import { fractionOf, hasEnded, jobsOf, phaseOf } from '@/lib/jobs'

const SHOWN = 5

/** What runs now; when nothing does, what ran last. */
export function RunningJobs() {
  const { value: tree, isKnown } = useLive('/jobs')
  const titles = useTitles()
  const now = useNow(15_000)
  const jobs = useMemo(() => jobsOf(tree), [tree])
  const running = jobs.filter((job) => !hasEnded(job))
  const shown = [...running, ...jobs.filter(hasEnded)].slice(0, SHOWN)
  return (
    <section aria-labelledby="home-jobs" className="panel">
      <div className="border-line flex items-baseline justify-between gap-4 border-b px-5 py-3">
        <h2 id="home-jobs" className="font-semibold">
          Jobs
        </h2>
        <p className="text-ink-2 text-xs">
          {isKnown ? (running.length > 0 ? `${running.length} running` : 'none running') : ''}
        </p>
      </div>
      {!isKnown && <Loading rows={3} label="Loading the jobs" />}
      {isKnown && shown.length === 0 && (
        <p className="text-ink-2 px-5 py-6 text-center">Nothing has run yet.</p>
      )}
      <ul className="divide-line divide-y">
        {shown.map((job) => {
          const fraction = fractionOf(job)
          const title = titles(job)
          return (
            <li key={job.id}>
              <Link
                href={`/jobs/?id=${job.id}`}
                className="hover:bg-hover block px-5 py-2.5 -outline-offset-2"
              >
                <span className="flex items-center justify-between gap-3">
                  <span className="truncate font-medium">{title}</span>
                  <span className="flex shrink-0 items-center gap-3">
                    <span className="text-ink-3 text-xs">
                      {hasEnded(job)
                        ? now > 0 && formatAgo(timeMs(job.createdAt), now)
                        : fraction === null
                          ? phaseOf(job)
                          : formatPercent(fraction)}
                    </span>
                    <StateChip state={job.state} />
                  </span>
                </span>
                {!hasEnded(job) && (
                  <span className="mt-2 block">
                    <Progress fraction={fraction} label={`Progress of ${title}`} />
                  </span>
                )}
              </Link>
            </li>
          )
        })}
      </ul>
    </section>
  )
}
