'use client'

import { useState } from 'react'

import type { NetworkReport } from '@/lib/network'

import { LeaveDialog } from './LeaveDialog'
import { SectionTitle } from './SectionTitle'

/** What others need to recognize this node, and the way out of the network. */
export function OwnNode({ report, onChange }: { report: NetworkReport; onChange: () => void }) {
  const { node, network, mayManage } = report
  const [leaving, setLeaving] = useState(false)
  const admins = report.nodes.filter(({ admin }) => admin).map(({ name }) => name)
  return (
    <section aria-labelledby="own-node">
      <SectionTitle id="own-node" title="This node">
        {network !== null && mayManage && (
          <button
            type="button"
            className="button button-danger button-small"
            onClick={() => setLeaving(true)}
          >
            Leave the network…
          </button>
        )}
      </SectionTitle>
      <dl className="panel grid gap-x-6 gap-y-1 px-5 py-4 sm:grid-cols-[max-content_minmax(0,1fr)]">
        <dt className="text-ink-2">Name</dt>
        <dd className="font-semibold">{node.name}</dd>
        <dt className="text-ink-2">Fingerprint</dt>
        <dd>
          <code className="font-mono break-all">{node.fingerprint}</code>
          <p className="text-ink-3 text-xs">Read it out to the person who accepts this node.</p>
        </dd>
        <dt className="text-ink-2">Id</dt>
        <dd>
          <code className="font-mono text-xs break-all">{node.id}</code>
        </dd>
        {network !== null && !report.revoked && (
          <>
            <dt className="text-ink-2">Role</dt>
            <dd>
              {report.nodes[0]?.admin
                ? 'admin: it may invite, accept and revoke nodes'
                : `member: nodes are invited, accepted and revoked at ${admins.join(', ')}`}
            </dd>
          </>
        )}
      </dl>
      {leaving && (
        <LeaveDialog
          isRevoked={report.revoked}
          onClose={() => {
            setLeaving(false)
            onChange()
          }}
        />
      )}
    </section>
  )
}
