'use client'

import { Activity } from 'lucide-react'
import Link from 'next/link'
import { useRouter, useSearchParams } from 'next/navigation'
import { useMemo } from 'react'

import { Progress } from '@/components/ui/Bar'
import { PageTitle } from '@/components/ui/PageTitle'
import { StateChip } from '@/components/ui/StateChip'
import { Empty, Failed, Loading } from '@/components/ui/States'
import { formatAgo, formatElapsed, formatPercent, timeMs } from '@/lib/format'
import { useLive, useNow } from '@/lib/hooks'
import { checkOf, fractionOf, hasEnded, jobsOf, phaseOf, type LiveJob } from '@/lib/jobs'
import { isLost, live } from '@/lib/live'

import { JobDetail } from './JobDetail'
import { useTitles } from './useTitles'

/** Every job the node remembers, live, and one of them in full. */
export function JobsPage() {
  const { value: tree, isKnown, connection } = useLive('/jobs')
  const chosen = useSearchParams().get('id')
  const router = useRouter()
  const titles = useTitles()
  const jobs = useMemo(() => jobsOf(tree), [tree])
  const job = jobs.find(({ id }) => id === chosen) ?? (chosen ? null : jobs[0])

  return (
    <div className="mx-auto w-full max-w-7xl flex-1 px-4 py-6 sm:px-6">
      <PageTitle title="Jobs">
        Work that runs longer than a question: uploads becoming tables, and pipelines.
      </PageTitle>
      {!isKnown && !isLost(connection) && (
        <div className="panel">
          <Loading rows={6} label="Loading the jobs" />
        </div>
      )}
      {!isKnown && isLost(connection) && (
        <Failed
          title="The jobs cannot be shown"
          message="The node cannot be reached."
          hint="Start it with `platform up`."
          onRetry={() => live.retry()}
        />
      )}
      {isKnown && jobs.length === 0 && (
        <div className="panel">
          <Empty title="Nothing has run yet" icon={<Activity size={22} aria-hidden />}>
            A job appears here the moment it starts.{' '}
            <Link href="/data/" className="link">
              Upload a file
            </Link>{' '}
            to see the first one.
          </Empty>
        </div>
      )}
      {isKnown && jobs.length > 0 && (
        <div className="grid items-start gap-4 lg:grid-cols-[22rem_minmax(0,1fr)]">
          <nav
            aria-label="Jobs"
            className="panel max-h-[70dvh] overflow-auto lg:max-h-[calc(100dvh-11rem)]"
          >
            <ul>
              {jobs.map((each) => (
                <JobRow
                  key={each.id}
                  job={each}
                  title={titles(each)}
                  here={each.id === job?.id}
                  onOpen={() => router.replace(`/jobs/?id=${each.id}`, { scroll: false })}
                />
              ))}
            </ul>
          </nav>
          {job ? (
            <JobDetail key={job.id} job={job} title={titles(job)} />
          ) : (
            <div className="panel">
              <Empty title="This job is not known here">
                It may have been removed, or the address is from another node.
              </Empty>
            </div>
          )}
        </div>
      )}
    </div>
  )
}

function JobRow({
  job,
  title,
  here,
  onOpen,
}: {
  job: LiveJob
  title: string
  here: boolean
  onOpen: () => void
}) {
  const ended = hasEnded(job)
  const now = useNow(ended ? 30_000 : 1_000)
  const fraction = fractionOf(job)
  const started = timeMs(job.startedAt) ?? timeMs(job.createdAt)
  const finished = timeMs(job.finishedAt)
  const check = checkOf(job)
  const seconds =
    started === null ? null : Math.max(0, (finished ?? (ended ? started : now)) - started) / 1000
  return (
    <li className="border-line border-b last:border-b-0">
      <button
        type="button"
        aria-current={here ? 'true' : undefined}
        onClick={onOpen}
        className={`w-full px-3.5 py-2.5 text-left -outline-offset-2 ${here ? 'bg-accent-soft' : 'hover:bg-hover'}`}
      >
        <span className="flex items-center justify-between gap-3">
          <span className="truncate font-medium">{title}</span>
          <span className="flex shrink-0 gap-1.5">
            {check && <StateChip state={check.state} />}
            <StateChip state={job.state} />
          </span>
        </span>
        <span className="text-ink-2 mt-0.5 flex justify-between gap-3 text-xs">
          <span className="truncate">
            {ended ? formatAgo(timeMs(job.createdAt), now) : phaseOf(job)}
          </span>
          <span className="shrink-0">
            {!ended && fraction !== null && `${formatPercent(fraction)} · `}
            {now > 0 && formatElapsed(seconds)}
          </span>
        </span>
        {!ended && (
          <span className="mt-1.5 block">
            <Progress fraction={fraction} label={`Progress of ${title}`} />
          </span>
        )}
      </button>
    </li>
  )
}
