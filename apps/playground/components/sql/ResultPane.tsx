'use client'

import { Check, TextCursorInput } from 'lucide-react'
import { useState } from 'react'

import { Progress } from '@/components/ui/Bar'
import { Empty, Failed } from '@/components/ui/States'
import { api, ENGINES, type ApiError, type Engine } from '@/lib/api'
import { formatElapsed, plural } from '@/lib/format'
import { useNow } from '@/lib/hooks'
import { titleOfCode } from '@/lib/jobs'
import { mayChangeData } from '@/lib/sql/changes'

import { ExportButtons } from './ExportButtons'
import { ResultGrid } from './ResultGrid'
import type { Answered, QueryState } from './useQuery'

/** The lower half of the SQL page: empty, running, the result, or the error. */
export function ResultPane({ state, onCancel }: { state: QueryState; onCancel: () => void }) {
  const running = state.phase === 'running'
  const shown = state.phase === 'done' || running ? state.last : null
  return (
    <section
      aria-label="Answer"
      aria-busy={running}
      className="bg-surface flex min-h-64 min-w-0 flex-1 flex-col max-md:h-[75dvh] max-md:flex-none"
    >
      {running && <Running startedMs={state.startedMs} onCancel={onCancel} />}
      {shown && (
        <div className={`flex min-h-0 flex-1 flex-col ${running ? 'opacity-45' : ''}`}>
          {!running && <Summary last={shown} />}
          <div className="min-h-0 flex-1">
            {shown.answer.columns.length > 0 && shown.answer.rows.length > 0 ? (
              <Grid key={shown.sql + String(shown.elapsedMs)} last={shown} />
            ) : (
              <Empty title="No rows">The query ran and found nothing that matches.</Empty>
            )}
          </div>
        </div>
      )}
      {state.phase === 'idle' && (
        <Empty title="Ask something" icon={<TextCursorInput size={22} aria-hidden />}>
          The answer appears here. Every table in the list can be asked with plain SQL.
        </Empty>
      )}
      {state.phase === 'cancelled' && (
        <Empty title="Cancelled">
          You stopped the query after {formatElapsed(state.elapsedMs / 1000)}.
        </Empty>
      )}
      {state.phase === 'failed' && <Trouble error={state.error} elapsedMs={state.elapsedMs} />}
    </section>
  )
}

function Running({ startedMs, onCancel }: { startedMs: number; onCancel: () => void }) {
  const now = useNow(100)
  const seconds = Math.max(0, (now || startedMs) - startedMs) / 1000
  return (
    <div className="border-line flex items-center gap-3 border-b px-4 py-2">
      <span className="text-ink-2 shrink-0">Running for {seconds.toFixed(1)} s</span>
      <Progress fraction={null} label="The query is running" />
      <button type="button" className="button button-small" onClick={onCancel}>
        Cancel
      </button>
    </div>
  )
}

function Trouble({ error, elapsedMs }: { error: ApiError; elapsedMs: number }) {
  const { line, column } = error.details
  const place =
    typeof line === 'number'
      ? ` · line ${line}${typeof column === 'number' ? `, column ${column}` : ''}`
      : ''
  const title = error.unreachable
    ? 'The node cannot be reached'
    : error.code === 'sql'
      ? 'This is not valid SQL'
      : (titleOfCode(error.code) ?? 'The query failed')
  return (
    <div className="overflow-auto p-4">
      <Failed title={title + place} message={error.message} hint={error.hint}>
        <p className="text-ink-3 mt-1 text-xs">
          After {formatElapsed(elapsedMs / 1000)}. Your query is kept.
        </p>
      </Failed>
    </div>
  )
}

function Grid({ last }: { last: Answered }) {
  const [note, setNote] = useState('')
  return (
    <div className="relative h-full min-h-0">
      <ResultGrid
        columns={last.answer.columns}
        rows={last.answer.rows}
        onCopied={(text) => (setNote(text), setTimeout(() => setNote(''), 1_800))}
      />
      <div
        role="status"
        className="pointer-events-none absolute inset-x-0 bottom-4 z-30 flex justify-center"
      >
        {note && (
          <span className="fade-in bg-ink text-ground flex items-center gap-1.5 rounded-full px-3 py-1 text-xs font-medium">
            <Check size={13} aria-hidden /> {note}
          </span>
        )}
      </div>
    </div>
  )
}

function engineName(engine: string): string {
  return ENGINES[engine as Engine] ?? engine
}

function Summary({ last: { sql, engine, answer, elapsedMs } }: { last: Answered }) {
  const [error, setError] = useState<ApiError | null>(null)
  return (
    <>
      <div className="border-line flex flex-wrap items-center gap-x-4 gap-y-1 border-b py-1.5 pr-2 pl-4">
        <p role="status" className="text-ink-2">
          <strong className="text-ink font-semibold">{plural(answer.rows.length, 'row')}</strong>
          {` · ${plural(answer.columns.length, 'column')} · ${formatElapsed(elapsedMs / 1000)}`}
          {answer.engine && ` · ${engineName(answer.engine)}`}
        </p>
        {engine === 'auto' && answer.engine === 'emsqrt' && (
          <p className="text-ink-2 text-xs">
            DuckDB had too little memory, so EM-√ answered on disk
          </p>
        )}
        {answer.truncated && (
          <p className="text-warn bg-warn-soft rounded-full px-2.5 py-0.5 text-xs font-medium">
            Only the first {plural(answer.rows.length, 'row')} are shown; an export holds them all
          </p>
        )}
        {!mayChangeData(sql) && (
          <ExportButtons
            name="result"
            ask={(format) => api.exportQuery(sql, engine, format)}
            onFailed={setError}
          />
        )}
      </div>
      {error && (
        <div className="p-3">
          <Failed title="The export failed" message={error.message} hint={error.hint} />
        </div>
      )}
    </>
  )
}
