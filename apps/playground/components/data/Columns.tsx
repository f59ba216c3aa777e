'use client'

import { BarChart3, X } from 'lucide-react'
import { useMemo, useState } from 'react'

import { Progress } from '@/components/ui/Bar'
import { Failed, Loading } from '@/components/ui/States'
import { api } from '@/lib/api'
import { fieldsOf } from '@/lib/datasets'
import { formatCell, formatCount } from '@/lib/format'
import { useResource } from '@/lib/hooks'
import { SAMPLE_ROWS } from '@/lib/profile'
import type { DatasetInfo } from '@/lib/records'
import { mergeStats } from '@/lib/stats'

import { useProfile } from './useProfile'

/** Columns in the document at once; a table may have a hundred thousand. */
const LISTED = 200

/** The schema with what the shards know of each column; distinct values and means on request. */
export function Columns({ dataset }: { dataset: DatasetInfo }) {
  const [filter, setFilter] = useState('')
  const [listed, setListed] = useState(LISTED)
  const key = `${dataset.id} ${dataset.head}`
  const head = useResource(key, (signal) => api.snapshot(dataset.id, 'head', signal))
  const fields = useMemo(() => fieldsOf(dataset), [dataset])
  const profile = useProfile(dataset, fields)
  const stats = useMemo(() => {
    const types = new Map(fields.map(({ name, type }) => [name, type]))
    if (head.state !== 'ready') return null
    // What is true of the first shards of a larger dataset need not be true of the others.
    const shards = head.data.shards ?? []
    return shards.length === head.data.shardCount ? mergeStats(shards, types) : null
  }, [head, fields])
  const loading = head.state === 'loading'
  const profiled = profile.state === 'idle' ? null : profile.columns
  const matching = useMemo(() => {
    const wanted = filter.trim().toLowerCase()
    return wanted ? fields.filter(({ name }) => name.toLowerCase().includes(wanted)) : fields
  }, [fields, filter])

  return (
    <section aria-labelledby="columns" className="panel">
      <div className="flex flex-wrap items-center gap-x-4 gap-y-2 px-5 py-2.5">
        <h2 id="columns" className="font-semibold">
          Columns
        </h2>
        {fields.length > LISTED / 4 && (
          <input
            type="search"
            aria-label="Find a column"
            placeholder={`Find one of ${formatCount(fields.length)}`}
            className="field w-44"
            value={filter}
            onChange={(event) => (setFilter(event.target.value), setListed(LISTED))}
          />
        )}
        <div className="ml-auto flex items-center gap-2">
          <ProfileButton profile={profile} />
        </div>
      </div>
      <ProfileProgress profile={profile} total={fields.length} rows={dataset.rows} />
      {head.state === 'failed' && (
        <div className="px-4 pb-4">
          <Failed
            title="The statistics cannot be shown"
            message={head.error.message}
            hint={head.error.hint}
            onRetry={head.reload}
          />
        </div>
      )}
      {profile.state === 'failed' && (
        <div className="px-4 pb-4">
          <Failed
            title="The profile failed"
            message={profile.error?.message}
            hint={profile.error?.hint}
            onRetry={profile.start}
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
            {matching.slice(0, listed).map(({ name, type, nullable }) => {
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
                      <td className="number">{rounded(more?.distinct)}</td>
                      <td className="number">{rounded(more?.mean)}</td>
                      <td className="number">{rounded(more?.median)}</td>
                    </>
                  )}
                </tr>
              )
            })}
          </tbody>
        </table>
        {fields.length === 0 && <Loading label="Loading the columns" />}
        {fields.length > 0 && matching.length === 0 && (
          <p className="text-ink-2 px-5 py-4">No column has this in its name.</p>
        )}
        {matching.length > listed && (
          <p className="flex items-center gap-3 px-5 py-3">
            <span className="text-ink-2">
              {formatCount(listed)} of {formatCount(matching.length)} columns
            </span>
            <button
              type="button"
              className="button button-small"
              onClick={() => setListed(listed + LISTED)}
            >
              Show more
            </button>
          </p>
        )}
      </div>
    </section>
  )
}

type Profile = ReturnType<typeof useProfile>

function ProfileButton({ profile }: { profile: Profile }) {
  if (profile.state === 'done') return null
  if (profile.state === 'running')
    return (
      <button type="button" className="button button-small" onClick={profile.cancel}>
        <X size={13} aria-hidden /> Cancel
      </button>
    )
  return (
    <button type="button" className="button button-small" onClick={profile.start}>
      <BarChart3 size={13} aria-hidden />{' '}
      {profile.columns.size > 0 ? 'Continue the profile' : 'Profile'}
    </button>
  )
}

function ProfileProgress({
  profile: { state, columns, outOfTime },
  total,
  rows,
}: {
  profile: Profile
  total: number
  rows: number
}) {
  if (state === 'idle') return null
  const done = `${formatCount(columns.size)} of ${formatCount(total)} columns`
  const sample =
    rows > SAMPLE_ROWS ? `, from a sample of about ${formatCount(SAMPLE_ROWS)} rows` : ''
  return (
    <div className="flex flex-wrap items-center gap-x-4 gap-y-1 px-5 pb-3">
      <p role="status" className="text-ink-2 text-xs">
        {state === 'running' && `Profiling: ${done}${sample}`}
        {state === 'stopped' && `${outOfTime ? 'Out of time' : 'Cancelled'} after ${done}`}
        {state === 'failed' && `Failed after ${done}`}
        {state === 'done' && `Profile of ${done}${sample}`}
      </p>
      {state === 'running' && (
        <div className="min-w-24 flex-1">
          <Progress fraction={columns.size / Math.max(1, total)} label="Profiling the columns" />
        </div>
      )}
    </div>
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

/** A number as people read it; a dash where there is none, or none yet. */
function rounded(value: unknown): string {
  if (value === null || value === undefined) return '–'
  const number =
    typeof value === 'number' || (typeof value === 'string' && value.trim() !== '')
      ? Number(value)
      : NaN
  return Number.isFinite(number)
    ? number.toLocaleString('en-US', { maximumSignificantDigits: 6 })
    : String(value)
}
