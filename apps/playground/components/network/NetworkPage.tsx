'use client'

import { Network, Plus } from 'lucide-react'
import { useEffect, useState } from 'react'

import { PageTitle } from '@/components/ui/PageTitle'
import { Empty, Failed, Loading } from '@/components/ui/States'
import { api } from '@/lib/api'
import { useLive, useResource } from '@/lib/hooks'
import { summary, type NetworkReport } from '@/lib/network'

import { InviteDialog } from './InviteDialog'
import { JoinForm } from './JoinForm'
import { NodeTable } from './NodeTable'
import { OwnNode } from './OwnNode'
import { Topology } from './Topology'
import { WaitingNodes } from './WaitingNodes'

const EVERY_MS = 5_000

/** The other nodes that this one knows, and how they come into the network. */
export function NetworkPage() {
  const report = useResource('network', api.network, EVERY_MS)
  const { value: rows } = useLive('/nodes')
  const [inviting, setInviting] = useState(false)
  const { reload } = report
  // The rows change as soon as a node does; the request has what is not in them.
  useEffect(() => reload(), [rows, reload])
  const isManager = report.state === 'ready' && report.data.mayManage && !report.data.revoked

  return (
    <div className="mx-auto w-full max-w-7xl flex-1 px-4 py-6 sm:px-6">
      <PageTitle
        title="Network"
        actions={
          isManager && (
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
        {report.state === 'ready' && report.data.network !== null
          ? summary(report.data.nodes)
          : 'Nodes of other offices and machines that this one works with.'}
      </PageTitle>
      {report.state === 'loading' && (
        <div className="panel">
          <Loading rows={5} label="Loading the network" />
        </div>
      )}
      {report.state === 'failed' && (
        <Failed
          title="The node did not report its network"
          message={report.error.message}
          hint={report.error.hint}
          onRetry={reload}
        />
      )}
      {report.state === 'ready' && <Report report={report.data} onChange={reload} />}
      {inviting && (
        <InviteDialog
          onClose={() => {
            setInviting(false)
            reload()
          }}
        />
      )}
    </div>
  )
}

function Report({ report, onChange }: { report: NetworkReport; onChange: () => void }) {
  if (report.network === null) {
    return (
      <div className="flex flex-col gap-6">
        <div className="panel">
          <Empty title="This node is in no network" icon={<Network size={22} aria-hidden />}>
            {report.mayManage
              ? 'Invite another node, which founds a network, or join one with an invite that you got.'
              : 'An admin of this node can found or join one.'}
          </Empty>
        </div>
        {report.mayManage && <JoinForm onChange={onChange} />}
        <OwnNode node={report.node} />
      </div>
    )
  }
  return (
    <div className="flex flex-col gap-6">
      {report.revoked && (
        <Failed
          title="This node was removed from its network"
          message="The other nodes accept it no more."
          hint="`platform net leave` forgets that network."
        />
      )}
      <WaitingNodes
        waiting={report.waiting}
        mayAccept={report.mayManage && !report.revoked}
        onChange={onChange}
      />
      <div className="grid items-start gap-6 xl:grid-cols-[minmax(0,1fr)_24rem]">
        <NodeTable nodes={report.nodes} own={report.node.id} />
        <Topology nodes={report.nodes} />
      </div>
      <OwnNode node={report.node} />
    </div>
  )
}
