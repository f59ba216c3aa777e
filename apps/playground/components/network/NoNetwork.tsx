import { Network } from 'lucide-react'

import { Empty } from '@/components/ui/States'
import type { NetworkReport } from '@/lib/network'

import { JoinForm } from './JoinForm'
import { NearbyNodes } from './NearbyNodes'
import { OwnNode } from './OwnNode'

/** A node without a network: how to start one, and how to join one. */
export function NoNetwork({ report, onChange }: { report: NetworkReport; onChange: () => void }) {
  return (
    <div className="flex flex-col gap-6">
      <div className="panel">
        <Empty title="This node is in no network" icon={<Network size={22} aria-hidden />}>
          {report.mayManage
            ? 'With a network, nodes of several offices share tables, hold copies of each other’s, and query them as one. Invite another node, which founds a network, or join one.'
            : 'An admin of this node can found or join one.'}
        </Empty>
      </div>
      {report.mayManage && report.discovers && <NearbyNodes mayJoin onChange={onChange} />}
      {report.mayManage && <JoinForm onChange={onChange} />}
      <OwnNode report={report} onChange={onChange} />
    </div>
  )
}
