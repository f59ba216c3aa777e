'use client'

import { BarChart3 } from 'lucide-react'
import { useMemo, useState } from 'react'

import { Failed, Loading } from '@/components/ui/States'
import { api, type SqlAnswer } from '@/lib/api'
import { fieldsOf } from '@/lib/datasets'
import { formatCell, formatCount } from '@/lib/format'
import { useResource } from '@/lib/hooks'
import type { DatasetInfo } from '@/lib/records'
import { quoteName } from '@/lib/sql/names'
import { mergeStats } from '@/lib/stats'

/** The schema with what the shards know of each column; distinct values and means on request. */
export function Columns({ dataset }: { dataset: DatasetInfo }) {
  const [profiling, setProfiling] = useState(false)
  const key = `${dataset.id} ${dataset.head}`
  const snapshots = useResource(key, (signal) => api.snapshots(dataset.id, signal))
  const profile = useResource(profiling ? `profile ${key}` : null, (signal) =>
    api.query(`summarize ${quoteName(dataset.name)}`, 'auto', signal),
  )
  const fields = useMemo(() => fieldsOf(dataset), [dataset])
  const stats = useMemo(() => {
    const types = new Map(fields.map(({ name, type }) => [name, type]))
    return snapshots.state === 'ready' ? mergeStats(snapshots.data[0]?.shards ?? [], types) : null
  }, [snapshots, fields])
  const loading = snapshots.state === 'loading'
  const profiled = profile.state === 'ready' ? profileOf(profile.data) : null

  return (
    <section aria-labelledby="columns" className="panel">
      <div className="flex items-center justify-between gap-4 px-5 py-2.5">
        <h2 id="columns" className="font-semibold">
          Columns
        </h2>
        {!profiled && (
          <button
            type="button"
            className="button button-small"
            disabled={profiling && profile.state === 'loading'}
            onClick={() => (profiling ? profile.reload() : setProfiling(true))}
          >
            <BarChart3 size={13} aria-hidden />{' '}
            {profiling && profile.state === 'loading' ? 'Profiling…' : 'Profile'}
          </button>
        )}
      </div>
      {snapshots.state === 'failed' && (
        <div className="px-4 pb-4">
          <Failed
            title="The statistics cannot be shown"
            message={snapshots.error.message}
            hint={snapshots.error.hint}
            onRetry={snapshots.reload}
          />
        </div>
      )}
      {profiling && profile.state === 'failed' && (
        <div className="px-4 pb-4">
          <Failed
            title="The profile failed"
            message={profile.error.message}
            hint={profile.error.hint}
            onRetry={profile.reload}
          />
        </div>
      )}
      <div
        className="border-line max-h-96 overflow-auto border-t"
        role="group"
        aria-labelledby="columns"
        tabIndex={0}
      >
        <table className="table">
          <thead className="bg-surface sticky top-0">
            <tr>
              <th scope="col">Name</th>
              <th scope="col">Type</th>
              <th scope="col">Nulls</th>
              <th scope="col">Least</th>
              <th scope="col">Greatest</th>
              {profiled && (
                <>
                  <th scope="col" className="number">
                    Distinct, about
                  </th>
                  <th scope="col" className="number">
                    Mean
                  </th>
                  <th scope="col" className="number">
                    Median
                  </th>
                </>
              )}
            </tr>
          </thead>
          <tbody>
            {fields.map(({ name, type, nullable }) => {
              const known = stats?.get(name)
              const more = profiled?.get(name)
              return (
                <tr key={name}>
                  <td className="font-mono text-xs font-semibold whitespace-nowrap">{name}</td>
                  <td className="text-ink-2 font-mono text-xs whitespace-nowrap">
                    {type}
                    {nullable ? '' : ', never null'}
                  </td>
                  <td className="w-40">
                    {loading ? (
                      <span className="skeleton block h-3 w-16" />
                    ) : (
                      <Nulls count={known?.nulls ?? null} rows={dataset.rows} />
                    )}
                  </td>
                  <Extreme value={known?.min} ready={!loading} />
                  <Extreme value={known?.max} ready={!loading} />
                  {profiled && (
                    <>
                      <td className="number">{more?.distinct ?? '–'}</td>
                      <td className="number">{more?.mean ?? '–'}</td>
                      <td className="number">{more?.median ?? '–'}</td>
                    </>
                  )}
                </tr>
              )
            })}
          </tbody>
        </table>
        {fields.length === 0 && <Loading label="Loading the columns" />}
      </div>
    </section>
  )
}

function Nulls({ count, rows }: { count: number | null; rows: number }) {
  if (count === null) return <span className="text-ink-3 text-xs">–</span>
  if (count === 0) return <span className="text-ink-3 text-xs">none</span>
  const share = rows > 0 ? count / rows : 0
  const percent = share < 0.001 ? '< 0.1 %' : `${(share * 100).toFixed(1)} %`
  return (
    <span
      className="flex items-center gap-2"
      title={`${formatCount(count)} of ${formatCount(rows)}`}
    >
      <span aria-hidden className="bg-sunken h-1.5 w-14 overflow-hidden rounded-full">
        <span
          className="bg-ochre block h-full rounded-full"
          style={{ width: `${Math.max(4, share * 100)}%` }}
        />
      </span>
      <span className="text-ink-2 text-xs whitespace-nowrap">{percent}</span>
    </span>
  )
}

function Extreme({
  value,
  ready,
}: {
  value: string | number | boolean | null | undefined
  ready: boolean
}) {
  if (!ready) {
    return (
      <td>
        <span className="skeleton block h-3 w-16" />
      </td>
    )
  }
  if (value === null || value === undefined) return <td className="text-ink-3">–</td>
  const text = formatCell(value)
  return (
    <td className="max-w-48 truncate font-mono text-xs" title={text}>
      {text}
    </td>
  )
}

interface ColumnProfile {
  distinct: string | null
  mean: string | null
  median: string | null
}

/** The answer of SUMMARIZE by column; what it does not hold stays a dash. */
function profileOf({ columns, rows }: SqlAnswer): Map<string, ColumnProfile> {
  const at = (name: string) => columns.findIndex((column) => column.name === name)
  const [name, distinct, mean, median] = ['column_name', 'approx_unique', 'avg', 'q50'].map(at)
  const text = (row: unknown[], index: number | undefined) =>
    index === undefined || index < 0 || row[index] === null ? null : rounded(row[index])
  return new Map(
    rows.map((row) => [
      String(row[name ?? 0]),
      { distinct: text(row, distinct), mean: text(row, mean), median: text(row, median) },
    ]),
  )
}

function rounded(value: unknown): string {
  const number =
    typeof value === 'number' || (typeof value === 'string' && value.trim() !== '')
      ? Number(value)
      : NaN
  return Number.isFinite(number)
    ? number.toLocaleString('en-US', { maximumSignificantDigits: 6 })
    : String(value)
}
