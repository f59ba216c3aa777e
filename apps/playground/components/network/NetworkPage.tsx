'use client'

import { Plus } from 'lucide-react'
import { useEffect, useState } from 'react'

import { PageTitle } from '@/components/ui/PageTitle'
import { Failed, Loading } from '@/components/ui/States'
import { useLive, useResource } from '@/lib/hooks'
import { RateMeter, summary, type NetworkReport, type Rate } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'

import { CheckPanel } from './CheckPanel'
import { Figures } from './Figures'
import { InviteDialog } from './InviteDialog'
import { NearbyNodes } from './NearbyNodes'
import { NetworkMapPanel } from './NetworkMapPanel'
import { NodeTable } from './NodeTable'
import { NoNetwork } from './NoNetwork'
import { OwnNode } from './OwnNode'
import { QueuedAppends } from './QueuedAppends'
import { SharedTables } from './SharedTables'
import { WaitingNodes } from './WaitingNodes'

const EVERY_MS = 5_000

/** The other nodes that this one knows, what they share, and how they come into the network. */
export function NetworkPage() {
  const [meter] = useState(() => new RateMeter())
  const shown = useResource(
    'network',
    async (signal) => {
      const report = await networkApi.show(signal)
      return { report, rates: meter.next(report) }
    },
    EVERY_MS,
  )
  const { value: rows } = useLive('/nodes')
  const [inviting, setInviting] = useState(false)
  const { reload } = shown
  // The rows change as soon as a node does; the request has what is not in them.
  useEffect(() => reload(), [rows, reload])
  const report = shown.state === 'ready' ? shown.data.report : null
  const isFirst = report !== null && report.network === null
  const mayInvite =
    report !== null &&
    report.mayManage &&
    !report.revoked &&
    (isFirst || report.nodes[0]?.admin === true)

  return (
    <div className="mx-auto w-full max-w-7xl flex-1 px-4 py-6 sm:px-6">
      <PageTitle
        title="Network"
        actions={
          mayInvite && (
            <button
              type="button"
              className="button button-primary"
              onClick={() => setInviting(true)}
            >
              <Plus size={15} aria-hidden /> Invite
            </button>
          )
        }
      >
        {report !== null && report.network !== null
          ? summary(report.nodes)
          : 'Nodes of other offices and machines that this one works with.'}
      </PageTitle>
      {shown.state === 'loading' && (
        <div className="panel">
          <Loading rows={5} label="Loading the network" />
        </div>
      )}
      {shown.state === 'failed' && (
        <Failed
          title="The node did not report its network"
          message={shown.error.message}
          hint={shown.error.hint}
          onRetry={reload}
        />
      )}
      {shown.state === 'ready' && shown.error && (
        <div className="mb-6">
          <Failed
            title="This is not up to date: the node did not report its network"
            message={shown.error.message}
            hint={shown.error.hint}
            onRetry={reload}
          />
        </div>
      )}
      {shown.state === 'ready' && (
        <Report report={shown.data.report} rates={shown.data.rates} onChange={reload} />
      )}
      {inviting && (
        <InviteDialog
          isFirst={isFirst}
          onClose={() => {
            setInviting(false)
            reload()
          }}
        />
      )}
    </div>
  )
}

function Report({
  report,
  rates,
  onChange,
}: {
  report: NetworkReport
  rates: ReadonlyMap<string, Rate>
  onChange: () => void
}) {
  const { value: rows } = useLive('/datasets')
  const shared = useResource(
    report.network === null || report.revoked ? null : report.network,
    networkApi.datasets,
    EVERY_MS,
  )
  const { reload } = shared
  useEffect(() => reload(), [rows, reload])
  if (report.network === null) return <NoNetwork report={report} onChange={onChange} />
  return (
    <div className="flex flex-col gap-6">
      {report.revoked ? (
        <Failed
          title="This node was removed from its network"
          message="The other nodes accept it no more."
          hint="Leave the network below, which forgets it. To come back, the node needs another data folder and an invite."
        />
      ) : (
        <Figures
          report={report}
          rates={rates}
          datasets={shared.state === 'ready' ? shared.data : null}
        />
      )}
      {!report.revoked && (
        <>
          <WaitingNodes
            waiting={report.waiting}
            mayAccept={report.mayManage && report.nodes[0]?.admin === true}
            onChange={onChange}
          />
          {report.mayManage && <CheckPanel />}
        </>
      )}
      <NodeTable report={report} rates={rates} onChange={onChange} />
      {!report.revoked && (
        <>
          <SharedTables report={report} shared={shared} />
          <QueuedAppends nodes={report.nodes} mayWrite={report.mayWrite} />
          {report.mayManage && report.discovers && (
            <NearbyNodes mayJoin={false} onChange={onChange} />
          )}
          <NetworkMapPanel nodes={report.nodes} />
        </>
      )}
      <OwnNode report={report} onChange={onChange} />
    </div>
  )
}
