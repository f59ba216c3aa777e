'use client'

import { ChevronLeft, TerminalSquare, Trash2 } from 'lucide-react'
import Link from 'next/link'
import { useRouter } from 'next/navigation'
import { useState, type ReactNode } from 'react'

import { IngestReport } from '@/components/jobs/IngestReport'
import { ResultGrid } from '@/components/sql/ResultGrid'
import { PageTitle } from '@/components/ui/PageTitle'
import { Empty, Failed, Loading } from '@/components/ui/States'
import { api } from '@/lib/api'
import { fieldsOf } from '@/lib/datasets'
import { formatBytes, formatCount, formatDate, timeMs } from '@/lib/format'
import { useNow, useResource } from '@/lib/hooks'
import { isLost } from '@/lib/live'
import type { DatasetInfo } from '@/lib/records'
import { firstRowsHref, quoteName } from '@/lib/sql/names'

import { Columns } from './Columns'
import { DeleteDialog } from './DeleteDialog'
import { GroupForm } from './GroupForm'
import { useDatasets } from './useDatasets'

const FIRST_ROWS = 50

/** One table: its columns, its first rows, and what can be done with it. */
export function DatasetPage({ id }: { id: string }) {
  const { datasets, ready, connection } = useDatasets()
  const dataset = datasets.find((each) => each.id === id || each.name === id)
  return (
    <div className="mx-auto w-full max-w-7xl flex-1 px-4 py-6 sm:px-6">
      <Link
        href="/data/"
        className="text-ink-2 hover:text-ink mb-2 inline-flex items-center gap-1 text-xs font-medium"
      >
        <ChevronLeft size={14} aria-hidden /> All tables
      </Link>
      {dataset && <Found dataset={dataset} />}
      {!dataset && !ready && !isLost(connection) && (
        <div className="panel mt-2">
          <Loading rows={6} label="Loading the table" />
        </div>
      )}
      {!dataset && !ready && isLost(connection) && (
        <Failed title="The table cannot be shown" message="The node cannot be reached." />
      )}
      {!dataset && ready && (
        <div className="panel mt-2">
          <Empty title="There is no such table">
            It may have been deleted, or its upload is still being read in.
          </Empty>
        </div>
      )}
    </div>
  )
}

function Found({ dataset }: { dataset: DatasetInfo }) {
  const router = useRouter()
  const now = useNow(60_000)
  const [deleting, setDeleting] = useState(false)
  const facts: [string, ReactNode][] = [
    ['Rows', formatCount(dataset.rows)],
    ['Columns', formatCount(fieldsOf(dataset).length)],
    ['Stored', formatBytes(dataset.bytes)],
    ['Shards', formatCount(dataset.shards)],
    ['Created', now > 0 ? formatDate(timeMs(dataset.createdAt)) : '–'],
  ]
  const described = fieldsOf(dataset).length > 0 || !dataset.damaged
  return (
    <>
      <PageTitle
        title={dataset.name}
        actions={
          <>
            {!dataset.damaged && (
              <Link href={firstRowsHref(dataset.name)} className="button button-primary">
                <TerminalSquare size={14} aria-hidden /> Query
              </Link>
            )}
            <button
              type="button"
              className="button button-danger"
              onClick={() => setDeleting(true)}
            >
              <Trash2 size={14} aria-hidden /> Delete
            </button>
          </>
        }
      >
        <dl className="flex flex-wrap gap-x-5 gap-y-1">
          {(described ? facts : []).map(([name, value]) => (
            <div key={name} className="flex gap-1.5">
              <dt className="text-ink-3">{name}</dt>
              <dd className="text-ink font-medium">{value}</dd>
            </div>
          ))}
        </dl>
      </PageTitle>
      {dataset.damaged ? (
        <Failed
          title="This table is damaged and cannot be read"
          message={dataset.damaged}
          hint="Other tables are not affected. Restore the data folder from a backup, or delete this table and upload its file again."
        />
      ) : (
        <div className="flex flex-col gap-4">
          <Columns dataset={dataset} />
          <FirstRows dataset={dataset} />
          <GroupForm dataset={dataset} />
          <IngestReport dataset={dataset.id} />
        </div>
      )}
      {deleting && (
        <DeleteDialog
          dataset={dataset}
          onClose={() => setDeleting(false)}
          onDeleted={() => router.push('/data/')}
        />
      )}
    </>
  )
}

function FirstRows({ dataset }: { dataset: DatasetInfo }) {
  const key = dataset.head ? `${dataset.id} ${dataset.head}` : null
  const rows = useResource(key, (signal) =>
    api.query(`select * from ${quoteName(dataset.name)} limit ${FIRST_ROWS}`, 'auto', signal),
  )
  return (
    <section aria-labelledby="first-rows" className="panel overflow-hidden">
      <h2 id="first-rows" className="border-line border-b px-5 py-3 font-semibold">
        First rows
      </h2>
      {rows.state === 'loading' && <Loading rows={6} label="Loading the first rows" />}
      {rows.state === 'failed' && (
        <div className="p-4">
          <Failed
            title="The rows cannot be shown"
            message={rows.error.message}
            hint={rows.error.hint}
            onRetry={rows.reload}
          />
        </div>
      )}
      {rows.state === 'ready' &&
        (rows.data.rows.length > 0 ? (
          <div style={{ height: Math.min(340, 46 + rows.data.rows.length * 27) }}>
            <ResultGrid
              columns={rows.data.columns}
              rows={rows.data.rows}
              label={`First rows of ${dataset.name}`}
            />
          </div>
        ) : (
          <Empty title="No rows">The file had a header and nothing below it.</Empty>
        ))}
    </section>
  )
}
