'use client'

import { useState } from 'react'

import { Failed } from '@/components/ui/States'
import { api, asApiError, type ApiError } from '@/lib/api'
import { formatAgo } from '@/lib/format'
import { useNow } from '@/lib/hooks'
import type { WaitingNode } from '@/lib/network'

/** The nodes that ask to join; nothing while there are none. */
export function WaitingNodes({
  waiting,
  mayAccept,
  onChange,
}: {
  waiting: readonly WaitingNode[]
  mayAccept: boolean
  onChange: () => void
}) {
  const now = useNow(5_000)
  const [error, setError] = useState<ApiError | null>(null)
  if (waiting.length === 0) return null
  const accept = (node: WaitingNode) => {
    setError(null)
    api
      .acceptNode(node.fingerprint)
      .then(onChange, (reason: unknown) => setError(asApiError(reason)))
  }
  return (
    <section aria-labelledby="waiting">
      <h2 id="waiting" className="eyebrow mb-2">
        Waiting to join
      </h2>
      {error && (
        <div className="mb-3">
          <Failed title="The node was not accepted" message={error.message} hint={error.hint} />
        </div>
      )}
      <ul className="panel divide-line divide-y">
        {waiting.map((node) => (
          <li key={node.id} className="flex flex-wrap items-center gap-x-6 gap-y-2 px-5 py-3">
            <div className="min-w-0 flex-1 basis-60">
              <p>
                <span className="font-semibold">{node.name}</span>{' '}
                <span className="text-ink-3 text-xs">
                  {now > 0 ? formatAgo(node.since * 1000, now) : ''}
                </span>
              </p>
              <code className="text-ink-2 font-mono text-xs break-all">{node.fingerprint}</code>
            </div>
            {mayAccept && (
              <button
                type="button"
                className="button"
                aria-label={`Accept ${node.name}`}
                onClick={() => accept(node)}
              >
                Accept
              </button>
            )}
          </li>
        ))}
      </ul>
      <p className="text-ink-2 mt-2 text-xs">
        Compare the whole fingerprint with the owner of the node before you accept it.
      </p>
    </section>
  )
}
