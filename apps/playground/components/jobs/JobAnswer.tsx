'use client'

import { ChevronLeft, ChevronRight } from 'lucide-react'
import { useCallback, useEffect, useMemo, useState, useSyncExternalStore } from 'react'

import { ExportButtons } from '@/components/sql/ExportButtons'
import { ResultGrid } from '@/components/sql/ResultGrid'
import { Empty, Failed, Loading } from '@/components/ui/States'
import { api, type ApiError } from '@/lib/api'
import { formatCount, plural } from '@/lib/format'
import { PagedRows, windowOf } from '@/lib/pages'
import type { JobInfo } from '@/lib/records'

/** Rows in one grid: 27 px each, and browsers end an element at 2^25 px. */
const GRID_ROWS_MAX = 1_000_000

/** What a pipeline computed; its rows are fetched as they are scrolled to. */
export function JobAnswer({ job }: { job: JobInfo }) {
  const total = typeof job.result?.rows === 'number' ? job.result.rows : 0
  const rows = useMemo(
    () =>
      new PagedRows(total, (offset, limit, signal) => api.jobRows(job.id, offset, limit, signal)),
    [job.id, total],
  )
  const version = useSyncExternalStore(rows.subscribe, rows.getVersion, rows.getVersion)
  useEffect(() => {
    rows.start()
    return () => rows.stop()
  }, [rows])
  const [error, setError] = useState<ApiError | null>(null)
  const [note, setNote] = useState('')
  return (
    <section aria-labelledby="job-answer" className="panel overflow-hidden">
      <div className="border-line flex flex-wrap items-center gap-x-3 gap-y-1 border-b py-2 pr-3 pl-5">
        <h3 id="job-answer" className="font-semibold">
          Result
        </h3>
        <p className="text-ink-2 text-xs">{plural(total, 'row')}</p>
        <p role="status" className="text-ink-2 text-xs">
          {note}
        </p>
        <ExportButtons
          name={job.id}
          ask={(format) => api.exportJob(job.id, format)}
          onFailed={setError}
        />
      </div>
      {error && (
        <div className="p-4">
          <Failed title="The export failed" message={error.message} hint={error.hint} />
        </div>
      )}
      {rows.error && (
        <div className="p-4">
          <Failed
            title={rows.columns ? 'More rows cannot be shown' : 'The result cannot be shown'}
            message={rows.error.message}
            hint={rows.error.hint}
            onRetry={() => rows.start()}
          />
        </div>
      )}
      {!rows.columns && !rows.error && <Loading label="Loading the result" />}
      {rows.columns &&
        (total > 0 ? (
          <Pages key={job.id} rows={rows} version={version} onCopied={setNote} />
        ) : (
          <Empty title="No rows" />
        ))}
    </section>
  )
}

function Pages({
  rows,
  version,
  onCopied,
}: {
  rows: PagedRows
  version: number
  onCopied: (note: string) => void
}) {
  const [start, setStart] = useState(0)
  // A new object whenever a page has come, so that the grid draws it.
  const shown = useMemo(() => {
    void version
    return windowOf(rows, start, GRID_ROWS_MAX)
  }, [rows, start, version])
  const want = useCallback(
    (first: number, last: number) => rows.want(start + first, start + last),
    [rows, start],
  )
  return (
    <>
      {rows.length > GRID_ROWS_MAX && <Windows total={rows.length} start={start} onGo={setStart} />}
      <div style={{ height: Math.min(380, 46 + shown.length * 27) }}>
        <ResultGrid
          key={start}
          columns={rows.columns ?? []}
          rows={shown}
          measured={rows.first}
          firstRow={start}
          onShown={want}
          onCopied={onCopied}
        />
      </div>
    </>
  )
}

function Windows({
  total,
  start,
  onGo,
}: {
  total: number
  start: number
  onGo: (start: number) => void
}) {
  const end = Math.min(start + GRID_ROWS_MAX, total)
  return (
    <nav
      aria-label="Parts of the result"
      className="border-line flex items-center gap-2 border-b px-5 py-1.5"
    >
      <button
        type="button"
        aria-label="Rows before these"
        className="button button-icon button-small"
        disabled={start === 0}
        onClick={() => onGo(start - GRID_ROWS_MAX)}
      >
        <ChevronLeft size={14} aria-hidden />
      </button>
      <p className="text-ink-2 text-xs">
        Rows {formatCount(start + 1)} to {formatCount(end)} of {formatCount(total)}
      </p>
      <button
        type="button"
        aria-label="Rows after these"
        className="button button-icon button-small"
        disabled={end === total}
        onClick={() => onGo(start + GRID_ROWS_MAX)}
      >
        <ChevronRight size={14} aria-hidden />
      </button>
    </nav>
  )
}
