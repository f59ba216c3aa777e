'use client'

import { useState } from 'react'

import { ExportButtons } from '@/components/sql/ExportButtons'
import { ResultGrid } from '@/components/sql/ResultGrid'
import { Empty, Failed, Loading } from '@/components/ui/States'
import { api, SHOWN_ROWS_MAX, type ApiError } from '@/lib/api'
import { plural } from '@/lib/format'
import { useResource } from '@/lib/hooks'
import type { JobInfo } from '@/lib/records'

/** What a pipeline computed; an answer too long for a page is only offered as a file. */
export function JobAnswer({ job }: { job: JobInfo }) {
  const rows = job.result?.rows
  const long = typeof rows === 'number' && rows > SHOWN_ROWS_MAX
  const answer = useResource(long ? null : job.id, (signal) => api.jobResult(job.id, signal))
  const [error, setError] = useState<ApiError | null>(null)
  return (
    <section aria-labelledby="job-answer" className="panel overflow-hidden">
      <div className="border-line flex items-center gap-3 border-b py-2 pr-3 pl-5">
        <h3 id="job-answer" className="font-semibold">
          Result
        </h3>
        {typeof rows === 'number' && <p className="text-ink-2 text-xs">{plural(rows, 'row')}</p>}
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
      {long && <Empty title="Too long to show">Save it as a file; every row is in there.</Empty>}
      {!long && answer.state === 'loading' && <Loading label="Loading the result" />}
      {answer.state === 'failed' && (
        <div className="p-4">
          <Failed
            title="The result cannot be shown"
            message={answer.error.message}
            hint={answer.error.hint}
            onRetry={answer.reload}
          />
        </div>
      )}
      {answer.state === 'ready' &&
        (answer.data.rows.length > 0 ? (
          <div style={{ height: Math.min(380, 46 + answer.data.rows.length * 27) }}>
            <ResultGrid columns={answer.data.columns} rows={answer.data.rows} />
          </div>
        ) : (
          <Empty title="No rows" />
        ))}
    </section>
  )
}
