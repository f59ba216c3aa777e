'use client'

import { Database, Upload as UploadIcon } from 'lucide-react'
import { useSearchParams } from 'next/navigation'
import { useRef } from 'react'

import { ViewTable } from '@/components/storage/ViewTable'
import { PageTitle } from '@/components/ui/PageTitle'
import { Empty, Failed, Loading } from '@/components/ui/States'
import { isLost, live } from '@/lib/live'

import { DatasetPage } from './DatasetPage'
import { DatasetTable } from './DatasetTable'
import { DropZone, type DropZoneHandle } from './DropZone'
import { SampleButton } from './SampleButton'
import { UnfinishedUploads } from './UnfinishedUploads'
import { UploadList } from './UploadList'
import { useDatasets } from './useDatasets'

/** All tables and the way in for new ones; with `?id=` one table. */
export function DataPage() {
  const id = useSearchParams().get('id')
  return id ? <DatasetPage key={id} id={id} /> : <Datasets />
}

function Datasets() {
  const { datasets, ready, connection } = useDatasets()
  const zone = useRef<DropZoneHandle>(null)
  const lost = !ready && isLost(connection)

  return (
    <div className="mx-auto w-full max-w-7xl flex-1 px-4 py-6 sm:px-6">
      <PageTitle
        title="Data"
        actions={
          <button
            type="button"
            className="button button-primary"
            onClick={() => zone.current?.choose()}
          >
            <UploadIcon size={14} aria-hidden /> Upload files
          </button>
        }
      >
        Files become tables: checksummed in parts, stored as Parquet, ready for SQL.
      </PageTitle>
      <DropZone ref={zone} tall={ready && datasets.length === 0} />
      <UnfinishedUploads />
      <UploadList />
      <section aria-labelledby="tables" className="mt-6">
        <h2 id="tables" className="eyebrow mb-2">
          Tables
        </h2>
        {!ready && !lost && (
          <div className="panel">
            <Loading rows={5} label="Loading the tables" />
          </div>
        )}
        {lost && (
          <Failed
            title="The tables cannot be shown"
            message="The node cannot be reached."
            hint="Start it with `platform up`."
            onRetry={() => live.retry()}
          />
        )}
        {ready && datasets.length === 0 && (
          <div className="panel">
            <Empty title="No tables yet" icon={<Database size={22} aria-hidden />}>
              Drop a CSV, Parquet, Arrow or JSON file above, or begin with a sample.
              <div className="mt-3">
                <SampleButton />
              </div>
            </Empty>
          </div>
        )}
        {ready && datasets.length > 0 && <DatasetTable datasets={datasets} />}
      </section>
      <div className="mt-6">
        <ViewTable />
      </div>
    </div>
  )
}
