import type { ReactNode } from 'react'

import { formatBytes, formatDate } from '@/lib/format'
import type { NetworkNode } from '@/lib/network'

/** All that is known of a node that its row has no room for. */
export function NodeDetails({
  node,
  onRevoke,
}: {
  node: NetworkNode
  /** Null if this user may not revoke it. */
  onRevoke: (() => void) | null
}) {
  const { connection } = node
  const facts: [string, ReactNode][] = [
    [
      'Fingerprint',
      <code key="f" className="font-mono">
        {node.fingerprint}
      </code>,
    ],
    [
      'Id',
      <code key="i" className="font-mono">
        {node.id}
      </code>,
    ],
    [
      'Addresses',
      node.addresses.length > 0
        ? node.addresses.join(', ')
        : 'none: it only connects to others, also through a third node',
    ],
    ['Member since', formatDate(node.since * 1000)],
  ]
  if (connection !== null) {
    facts.push([
      'Exchanged',
      `${formatBytes(connection.receivedBytes)} received, ${formatBytes(connection.sentBytes)} sent`,
    ])
  }
  return (
    <div className="sticky left-5 flex max-w-[calc(100vw-5rem)] flex-wrap items-end justify-between gap-x-6 gap-y-3 py-1 text-xs">
      <dl className="grid min-w-0 gap-x-5 gap-y-1 sm:grid-cols-[max-content_minmax(0,1fr)]">
        {facts.map(([name, value]) => (
          <div key={name} className="contents">
            <dt className="text-ink-2">{name}</dt>
            <dd className="[overflow-wrap:anywhere]">{value}</dd>
          </div>
        ))}
      </dl>
      {onRevoke && (
        <button type="button" className="button button-danger button-small" onClick={onRevoke}>
          Revoke {node.name}
        </button>
      )}
    </div>
  )
}
