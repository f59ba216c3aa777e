'use client'

import { Table2, TerminalSquare, X } from 'lucide-react'
import Link from 'next/link'
import { useState, type ReactNode } from 'react'

import { Meter, Progress } from '@/components/ui/Bar'
import { StateChip } from '@/components/ui/StateChip'
import { Failed } from '@/components/ui/States'
import { api, asApiError, type ApiError } from '@/lib/api'
import {
  formatBytes,
  formatCount,
  formatDate,
  formatElapsed,
  formatPercent,
  plural,
  timeMs,
} from '@/lib/format'
import { useNow } from '@/lib/hooks'
import {
  checkOf,
  datasetOf,
  fractionOf,
  hasEnded,
  kindOf,
  phaseOf,
  tasksOfJob,
  troubleOf,
  type LiveJob,
} from '@/lib/jobs'

import { IngestReport } from './IngestReport'
import { JobAnswer } from './JobAnswer'
import { Tasks } from './Tasks'

/** One job in full: where it is, what it uses, its tasks, and how it ended. */
export function JobDetail({ job, title }: { job: LiveJob; title: string }) {
  const ended = hasEnded(job)
  const fraction = fractionOf(job)
  const trouble = troubleOf(job.error)
  const failed = job.state === 'failed'
  const dataset = datasetOf(job)
  const check = checkOf(job)
  return (
    <article aria-label={title} className="flex min-w-0 flex-col gap-4">
      <section className="panel p-5">
        <div className="flex flex-wrap items-start justify-between gap-3">
          <div className="min-w-0">
            <h2 className="flex flex-wrap items-center gap-2.5 text-lg font-semibold">
              {title} <StateChip state={job.state} />
            </h2>
            <p className="text-ink-3 mt-0.5 font-mono text-xs">{job.id}</p>
          </div>
          <Actions job={job} ended={ended} />
        </div>
        <div className="mt-4">
          <div className="mb-1.5 flex justify-between gap-4">
            <span className="font-medium">{phaseOf(job)}</span>
            <span className="text-ink-2">{progressText(job, fraction)}</span>
          </div>
          {job.state !== 'cancelled' && (
            <Progress
              fraction={ended ? (failed ? (fraction ?? 1) : 1) : fraction}
              active={!ended}
              tone={failed ? 'bad' : 'accent'}
              label={`Progress of ${title}`}
            />
          )}
        </div>
        {trouble && job.state !== 'cancelled' && (
          <div className="mt-4">
            <Failed title={trouble.title} message={trouble.message} hint={trouble.hint} />
          </div>
        )}
        {check && (
          <p
            role="status"
            className={`mt-4 rounded-md px-3 py-2 ${check.isGood ? 'bg-good-soft text-good' : 'bg-warn-soft text-warn'}`}
          >
            <strong>{check.state}</strong>: {check.text}
          </p>
        )}
        <Facts job={job} ended={ended} />
      </section>
      {job.tasks.length > 0 && <Tasks tasks={job.tasks} />}
      {job.kind === 'ingest' && job.state === 'done' && dataset && (
        <IngestReport dataset={dataset} />
      )}
      {job.kind === 'plan' && job.state === 'done' && <JobAnswer key={check?.state} job={job} />}
      {job.plan && (
        <details className="panel group">
          <summary className="flex cursor-pointer items-center gap-2 px-5 py-3 font-medium -outline-offset-2">
            <TerminalSquare size={15} aria-hidden className="text-ink-3" /> Plan
          </summary>
          <pre
            tabIndex={0}
            className="border-line max-h-96 overflow-auto border-t px-5 py-4 font-mono text-xs"
          >
            {JSON.stringify(job.plan, null, 2)}
          </pre>
        </details>
      )}
    </article>
  )
}

function progressText(job: LiveJob, fraction: number | null): string {
  const progress = job.progress
  const parts: string[] = []
  if (!hasEnded(job) && fraction !== null) parts.push(formatPercent(fraction))
  const tasks = tasksOfJob(job)
  if (tasks) parts.push(`${formatCount(tasks.done)} of ${plural(tasks.total, 'task')}`)
  if (progress?.bytesTotal)
    parts.push(
      `${formatBytes(Math.min(progress.bytesDone, progress.bytesTotal))} of ${formatBytes(progress.bytesTotal)}`,
    )
  return parts.join(' · ')
}

function Actions({ job, ended }: { job: LiveJob; ended: boolean }) {
  const [asked, setAsked] = useState(false)
  const [error, setError] = useState<ApiError | null>(null)
  const dataset = datasetOf(job)
  const cancel = async () => {
    setAsked(true)
    setError(null)
    try {
      await api.cancelJob(job.id)
    } catch (reason) {
      setError(asApiError(reason))
      setAsked(false)
    }
  }
  return (
    <div className="flex flex-wrap items-center gap-2">
      {error && (
        <span role="alert" className="text-bad">
          {error.message}
        </span>
      )}
      {!ended && (
        <button
          type="button"
          className="button button-danger"
          disabled={asked}
          onClick={() => void cancel()}
        >
          <X size={14} aria-hidden /> {asked ? 'Cancelling…' : 'Cancel'}
        </button>
      )}
      {job.state === 'done' && dataset && (
        <Link href={`/data/?id=${dataset}`} className="button">
          <Table2 size={14} aria-hidden /> Open the table
        </Link>
      )}
    </div>
  )
}

function Facts({ job, ended }: { job: LiveJob; ended: boolean }) {
  const now = useNow(ended ? 60_000 : 500)
  const progress = job.progress
  const started = timeMs(job.startedAt)
  const finished = timeMs(job.finishedAt)
  const end = finished ?? (ended ? null : now)
  const memory = progress?.memoryBytes ?? 0
  const cap = progress?.capBytes ?? null
  return (
    <dl className="border-line mt-5 grid grid-cols-2 gap-x-6 gap-y-4 border-t pt-4 sm:grid-cols-4">
      <Fact name="Rows">{formatCount(progress?.rows ?? null)}</Fact>
      <Fact name="Time">
        {started !== null && end !== null && now > 0
          ? formatElapsed(Math.max(0, end - started) / 1000)
          : '–'}
      </Fact>
      <Fact name={cap ? 'Memory and its cap' : 'Memory'}>
        {memory > 0 || cap ? (
          <>
            {formatBytes(memory)}
            {cap ? <span className="text-ink-3"> of {formatBytes(cap)}</span> : null}
            {cap ? (
              <span className="mt-1.5 block">
                <Meter
                  value={memory}
                  max={cap}
                  label="Memory"
                  text={`${formatBytes(memory)} of ${formatBytes(cap)}`}
                />
              </span>
            ) : null}
          </>
        ) : (
          '–'
        )}
      </Fact>
      <Fact name="Spilled to disk">{progress ? formatBytes(progress.spilledBytes) : '–'}</Fact>
      <Fact name="Kind">{kindOf(job)}</Fact>
      <Fact name="Engine">{job.engine}</Fact>
      <Fact name="Asked by">{job.submittedBy}</Fact>
      <Fact name="Started">{now > 0 ? formatDate(started ?? timeMs(job.createdAt)) : '–'}</Fact>
    </dl>
  )
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="min-w-0">
      <dt className="text-ink-3 text-xs">{name}</dt>
      <dd className="mt-0.5 font-medium break-words">{children}</dd>
    </div>
  )
}
