'use client'

import { useEffect } from 'react'

import { PageTitle } from '@/components/ui/PageTitle'
import { Failed, Loading } from '@/components/ui/States'
import { openComputing } from '@/lib/compute'
import { useResource } from '@/lib/hooks'
import { workersApi } from '@/lib/workers'

import { RulesForm } from './RulesForm'
import { ThisTab } from './ThisTab'
import { WorkerTable } from './WorkerTable'

const EVERY_MS = 2_000

/** This tab as a worker of the node, and all workers that it has. */
export function ComputePage() {
  useEffect(openComputing, [])
  const report = useResource('workers', workersApi.show, EVERY_MS)
  return (
    <div className="mx-auto w-full max-w-7xl flex-1 px-4 py-6 sm:px-6">
      <PageTitle title="Compute">
        Tabs and programs that compute jobs with the engine <code>browser</code> for this node.
      </PageTitle>
      <div className="mb-6 grid gap-4 lg:grid-cols-2">
        <ThisTab />
        <RulesForm />
      </div>
      <section aria-labelledby="workers">
        <h2 id="workers" className="eyebrow mb-2">
          Workers of this node
        </h2>
        {report.state === 'loading' && (
          <div className="panel">
            <Loading rows={3} label="Loading the workers" />
          </div>
        )}
        {report.state === 'failed' && (
          <Failed
            title="The node did not list its workers"
            message={report.error.message}
            hint={report.error.hint}
            onRetry={report.reload}
          />
        )}
        {report.state === 'ready' && <WorkerTable report={report.data} />}
      </section>
    </div>
  )
}
