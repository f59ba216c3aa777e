'use client'

import { Check, Pause, Play, X } from 'lucide-react'
import Link from 'next/link'
import { useEffect, useMemo, useState } from 'react'

import { Progress } from '@/components/ui/Bar'
import { Failed } from '@/components/ui/States'
import { formatBytes, formatPercent, formatRate, formatTimeLeft } from '@/lib/format'
import { useLive, useNow, useStore } from '@/lib/hooks'
import { fractionOf, hasEnded, jobsOf, phaseOf, troubleOf, type LiveJob } from '@/lib/jobs'
import {
  anyUnderWay,
  cancelUpload,
  dismissUpload,
  pauseUpload,
  restartUpload,
  resumeUpload,
  uploads,
  type UploadItem,
} from '@/lib/uploads'

/** The uploads of this page: in transfer, being ingested, done or failed. */
export function UploadList() {
  const items = useStore(uploads)
  const { value: tree } = useLive('/jobs')
  const jobs = useMemo(() => new Map(jobsOf(tree).map((job) => [job.id, job])), [tree])
  const busy = anyUnderWay(items)

  useEffect(() => {
    if (!busy) return
    const warn = (event: BeforeUnloadEvent) => event.preventDefault()
    window.addEventListener('beforeunload', warn)
    return () => window.removeEventListener('beforeunload', warn)
  }, [busy])

  if (items.length === 0) return null
  return (
    <section aria-labelledby="uploads" className="mt-6">
      <h2 id="uploads" className="eyebrow mb-2">
        Uploads
      </h2>
      <ul className="panel divide-line divide-y">
        {items.toReversed().map((item) => (
          <UploadRow
            key={item.id}
            item={item}
            job={jobs.get(item.snapshot.result?.jobId ?? '') ?? null}
          />
        ))}
      </ul>
    </section>
  )
}

function UploadRow({ item, job }: { item: UploadItem; job: LiveJob | null }) {
  const { snapshot, id } = item
  const { state, name, result, error } = snapshot
  const reading = state === 'done'
  const finished = reading && job !== null && hasEnded(job)
  const trouble = finished && job.state === 'failed' ? troubleOf(job.error) : null
  const fraction = reading ? (job ? fractionOf(job) : null) : snapshot.fraction
  const active = reading ? !finished : !['failed', 'cancelled', 'paused'].includes(state)
  return (
    <li className="fade-in px-4 py-3">
      <div className="flex items-center gap-3">
        <div className="min-w-0 flex-1">
          <div className="flex items-baseline justify-between gap-4">
            <p className="truncate font-medium">{name}</p>
            <p className="text-ink-2 shrink-0 text-xs">
              <Where item={item} job={job} />
            </p>
          </div>
          {!(finished && job.state === 'done') &&
            state !== 'cancelled' &&
            error?.code !== 'conflict' && (
              <div className="mt-2">
                <Progress
                  fraction={fraction}
                  active={active}
                  tone={
                    state === 'failed' || trouble ? 'bad' : state === 'paused' ? 'quiet' : 'accent'
                  }
                  label={reading ? `Reading in ${name}` : `Uploading ${name}`}
                />
              </div>
            )}
        </div>
        <div className="flex items-center gap-0.5">
          {(state === 'sending' || state === 'waiting') && (
            <button
              type="button"
              aria-label={`Pause ${name}`}
              title="Pause"
              className="button button-quiet button-icon button-small"
              onClick={() => pauseUpload(id)}
            >
              <Pause size={14} aria-hidden />
            </button>
          )}
          {state === 'paused' && (
            <button
              type="button"
              aria-label={`Resume ${name}`}
              title="Resume"
              className="button button-quiet button-icon button-small"
              onClick={() => resumeUpload(id)}
            >
              <Play size={14} aria-hidden />
            </button>
          )}
          {finished && job.state === 'done' && result && (
            <Link href={`/data/?id=${result.datasetId}`} className="button button-small">
              Open
            </Link>
          )}
          {['starting', 'sending', 'waiting', 'paused'].includes(state) ? (
            <button
              type="button"
              aria-label={`Cancel ${name}`}
              title="Cancel"
              className="button button-quiet button-icon button-small"
              onClick={() => cancelUpload(id)}
            >
              <X size={14} aria-hidden />
            </button>
          ) : (
            (finished || ['failed', 'cancelled'].includes(state)) && (
              <button
                type="button"
                aria-label={`Remove ${name} from the list`}
                title="Remove from the list"
                className="button button-quiet button-icon button-small"
                onClick={() => dismissUpload(id)}
              >
                <X size={14} aria-hidden />
              </button>
            )
          )}
        </div>
      </div>
      {state === 'failed' && error && (
        <div className="mt-3">
          {error.code === 'conflict' ? (
            <NameConflict item={item} />
          ) : (
            <Failed
              title="The upload stopped"
              message={error.message}
              hint={error.hint}
              onRetry={() => resumeUpload(id)}
            />
          )}
        </div>
      )}
      {trouble && (
        <div className="mt-3">
          <Failed title={trouble.title} message={trouble.message} hint={trouble.hint} />
        </div>
      )}
    </li>
  )
}

function Where({ item: { snapshot }, job }: { item: UploadItem; job: LiveJob | null }) {
  const now = useNow(snapshot.state === 'waiting' ? 500 : null)
  const { state, bytesDone, size, fraction, bytesPerSecond, secondsLeft, resumed, retryAtMs } =
    snapshot
  const amount = `${formatBytes(bytesDone)} of ${formatBytes(size)}`
  if (state === 'starting') return 'Starting'
  if (state === 'sending') {
    const went = resumed ? 'went on · ' : ''
    const only = snapshot.resumable ? '' : ' · ends with this page'
    if (bytesPerSecond === null) return `${went}${formatPercent(fraction)} · ${amount}${only}`
    return `${went}${formatPercent(fraction)} · ${amount} · ${formatRate(bytesPerSecond)} · ${formatTimeLeft(secondsLeft)} left${only}`
  }
  if (state === 'waiting' && snapshot.error?.code === 'offline')
    return `This computer is offline; it goes on with the network · ${amount}`
  if (state === 'waiting')
    return `The node cannot be reached; again in ${Math.max(0, Math.ceil(((retryAtMs ?? now) - now) / 1000))} s · ${amount}`
  if (state === 'paused') return `Paused · ${amount}`
  if (state === 'completing') return 'Checking the parts'
  if (state === 'cancelled') return 'Cancelled'
  if (state === 'failed') return amount
  if (!job) return 'Waiting to be read in'
  if (job.state === 'done') {
    return (
      <span className="text-good inline-flex items-center gap-1 font-medium">
        <Check size={13} aria-hidden /> {formatBytes(size)} read in
      </span>
    )
  }
  const reading = fractionOf(job)
  return `${phaseOf(job)}${reading === null || hasEnded(job) ? '' : ` · ${formatPercent(reading)}`}`
}

function NameConflict({ item }: { item: UploadItem }) {
  const stem = item.snapshot.name.replace(/\.[^.]*$/, '')
  const [name, setName] = useState(`${stem}_2`)
  return (
    <div role="alert" className="border-warn/40 bg-warn-soft rounded-md border p-3.5">
      <p className="text-warn font-semibold">There is a table of this name already</p>

      <div className="mt-3 flex flex-wrap items-center gap-2">
        <button
          type="button"
          className="button"
          onClick={() => restartUpload(item, item.options, 'replace')}
        >
          Replace it
        </button>
        <button
          type="button"
          className="button"
          onClick={() => restartUpload(item, item.options, 'append')}
        >
          Add these rows to it
        </button>
        <span className="text-ink-2 mx-1">or keep both as</span>
        <input
          aria-label="Another name"
          className="field w-40 font-mono"
          value={name}
          onChange={(event) => setName(event.target.value)}
        />
        <button
          type="button"
          className="button"
          disabled={name.trim() === ''}
          onClick={() => restartUpload(item, { ...item.options, name: name.trim() }, 'create')}
        >
          Upload
        </button>
      </div>
    </div>
  )
}
