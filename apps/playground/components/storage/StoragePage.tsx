'use client'

import { HardDrive } from 'lucide-react'

import { PageTitle } from '@/components/ui/PageTitle'
import { Empty, Failed, Loading } from '@/components/ui/States'
import { api } from '@/lib/api'
import { useResource } from '@/lib/hooks'
import type { StorageReport } from '@/lib/storage'

import { DiskCard } from './DiskCard'
import { MaintenanceTable } from './MaintenanceTable'
import { QuotaTable } from './QuotaTable'
import { UsageTable } from './UsageTable'
import { ViewTable } from './ViewTable'

const EVERY_MS = 5_000

/** What the node stores, what of it can go, and the maintenance that does it. */
export function StoragePage() {
  const report = useResource('storage', api.storage, EVERY_MS)
  return (
    <div className="mx-auto w-full max-w-7xl flex-1 px-4 py-6 sm:px-6">
      <PageTitle title="Storage">
        What every table stores over all its versions, and what maintenance does with it.
      </PageTitle>
      {report.state === 'loading' && (
        <div className="panel">
          <Loading rows={6} label="Loading what is stored" />
        </div>
      )}
      {report.state === 'failed' && (
        <Failed
          title="The node did not report what it stores"
          message={report.error.message}
          hint={report.error.hint}
          onRetry={report.reload}
        />
      )}
      {report.state === 'ready' && <Report report={report.data} onChange={report.reload} />}
    </div>
  )
}

function Report({ report, onChange }: { report: StorageReport; onChange: () => void }) {
  return (
    <div className="flex flex-col gap-6">
      <DiskCard report={report} />
      <section aria-labelledby="usage">
        <h2 id="usage" className="eyebrow mb-2">
          Tables
        </h2>
        {report.datasets.length > 0 ? (
          <UsageTable datasets={report.datasets} />
        ) : (
          <div className="panel">
            <Empty title="Nothing is stored yet" icon={<HardDrive size={22} aria-hidden />}>
              Upload a file on the page Data, and what it takes appears here.
            </Empty>
          </div>
        )}
      </section>
      <ViewTable />
      <section aria-labelledby="maintenance">
        <h2 id="maintenance" className="eyebrow mb-2">
          Maintenance
        </h2>
        <MaintenanceTable
          tasks={report.maintenance}
          mayRun={report.disk !== undefined}
          onChange={onChange}
        />
      </section>
      <QuotaTable report={report} />
    </div>
  )
}
