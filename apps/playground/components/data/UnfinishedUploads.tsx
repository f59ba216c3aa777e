'use client'

import { FileSearch, Play, X } from 'lucide-react'
import { useEffect, useRef, useState } from 'react'

import {
  canPickFiles,
  FileMismatch,
  pickFiles,
  UploadError,
  type PickedFile,
  type UnfinishedUpload,
} from '@sennit/elytra'

import { Progress } from '@/components/ui/Bar'
import { Failed } from '@/components/ui/States'
import { formatAgo, formatBytes, formatPercent } from '@/lib/format'
import { useLive, useNow, useStore } from '@/lib/hooks'
import { continueUpload, discardUpload, refreshUnfinished, unfinishedUploads } from '@/lib/uploads'

/** Uploads that a reload, a crash or a closed tab interrupted, each with the way to go on. */
export function UnfinishedUploads() {
  const items = useStore(unfinishedUploads)
  const { connection } = useLive('/jobs')
  // Again when the node is there again, or a user has signed in.
  useEffect(() => void refreshUnfinished(), [connection.state])

  if (items.length === 0) return null
  return (
    <section aria-labelledby="unfinished" className="mt-6">
      <h2 id="unfinished" className="eyebrow mb-2">
        Unfinished uploads
      </h2>
      <ul className="panel divide-line divide-y">
        {items.map((item) => (
          <UnfinishedRow key={item.uploadId} item={item} />
        ))}
      </ul>
    </section>
  )
}

function UnfinishedRow({ item }: { item: UnfinishedUpload }) {
  const { name, size, bytesDone, startedAtMs, hasHandle } = item
  const now = useNow(30_000)
  const input = useRef<HTMLInputElement>(null)
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<Error | null>(null)
  // A handle that did not lead to the file: it may have been moved.
  const needsFile = !hasHandle || error !== null

  const run = (work: () => Promise<void>) => {
    setBusy(true)
    setError(null)
    work()
      .catch((reason: unknown) => setError(reason as Error))
      .finally(() => setBusy(false))
  }
  const sendFile = (source: File | PickedFile) => run(() => continueUpload(item, source))
  const choose = () => {
    if (!canPickFiles()) return input.current?.click()
    void pickFiles().then(([picked]) => picked && sendFile(picked), setError)
  }
  const received =
    bytesDone === null
      ? `${formatBytes(size)} · the node cannot be reached`
      : `${formatPercent(bytesDone / size)} · ${formatBytes(bytesDone)} of ${formatBytes(size)} received`
  return (
    <li className="fade-in px-4 py-3">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
        <div className="min-w-0 flex-1 basis-64">
          <div className="flex flex-wrap items-baseline justify-between gap-x-4">
            <p className="truncate font-medium">{name}</p>
            <p className="text-ink-2 text-xs">
              {received} · started {formatAgo(startedAtMs, now)}
            </p>
          </div>
          <div className="mt-2">
            <Progress
              fraction={size > 0 ? (bytesDone ?? 0) / size : 0}
              active={false}
              tone="quiet"
              label={`Received of ${name}`}
            />
          </div>
        </div>
        <input
          ref={input}
          type="file"
          className="sr-only"
          tabIndex={-1}
          aria-label={`The file ${name}`}
          onChange={(event) => {
            const file = event.target.files?.[0]
            if (file) sendFile(file)
            event.target.value = ''
          }}
        />
        <div className="flex items-center gap-1">
          {hasHandle && (
            <button
              type="button"
              className="button button-small"
              aria-label={`Continue ${name}`}
              disabled={busy}
              onClick={() => run(() => continueUpload(item))}
            >
              <Play size={13} aria-hidden /> Continue
            </button>
          )}
          {needsFile && (
            <button
              type="button"
              className="button button-small"
              aria-label={`Choose ${name} again`}
              disabled={busy}
              onClick={choose}
            >
              <FileSearch size={13} aria-hidden /> Choose the file again
            </button>
          )}
          <button
            type="button"
            aria-label={`Discard ${name}`}
            title="Discard: the node deletes what it has received"
            className="button button-quiet button-icon button-small"
            disabled={busy}
            onClick={() => run(() => discardUpload(item))}
          >
            <X size={14} aria-hidden />
          </button>
        </div>
      </div>
      {error && (
        <div className="mt-3">
          <Failed
            title={error instanceof FileMismatch ? 'This is another file' : 'It cannot go on'}
            message={error.message}
            hint={error instanceof UploadError ? error.hint : null}
          />
        </div>
      )}
    </li>
  )
}
