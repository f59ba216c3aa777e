'use client'

import { ResultGrid } from '@/components/sql/ResultGrid'
import { Empty, Failed, Loading } from '@/components/ui/States'
import { api } from '@/lib/api'
import { plural } from '@/lib/format'
import { useResource } from '@/lib/hooks'

/** What a pipeline computed. */
export function JobAnswer({ id }: { id: string }) {
  const answer = useResource(id, (signal) => api.jobResult(id, signal))
  return (
    <section className="panel overflow-hidden">
      <div className="border-line flex items-baseline gap-3 border-b px-5 py-3">
        <h3 className="font-semibold">Result</h3>
        {answer.state === 'ready' && (
          <p className="text-ink-2 text-xs">
            {plural(answer.data.rows.length, 'row')}
            {answer.data.truncated ? ', more not shown' : ''}
          </p>
        )}
      </div>
      {answer.state === 'loading' && <Loading label="Loading the result" />}
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
          <div style={{ height: Math.min(380, 44 + answer.data.rows.length * 27) }}>
            <ResultGrid columns={answer.data.columns} rows={answer.data.rows} />
          </div>
        ) : (
          <Empty title="No rows" />
        ))}
    </section>
  )
}
