'use client'

import { useState } from 'react'

import { ConfirmDialog } from '@/components/ui/ConfirmDialog'
import { formatAgo } from '@/lib/format'
import { useNow } from '@/lib/hooks'
import type { WaitingNode } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'

import { SectionTitle } from './SectionTitle'

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
  const [chosen, setChosen] = useState<WaitingNode | null>(null)
  if (waiting.length === 0) return null
  return (
    <section aria-labelledby="waiting">
      <SectionTitle id="waiting" title="Waiting to join" />
      <ul className="panel divide-line divide-y">
        {waiting.map((node) => (
          <li key={node.id} className="flex flex-wrap items-center gap-x-6 gap-y-2 px-5 py-3">
            <div className="min-w-0 flex-1 basis-60">
              <p>
                <span className="font-semibold">{node.name}</span>{' '}
                <span className="text-ink-3 text-xs">
                  {now > 0 ? `asked ${formatAgo(node.since * 1000, now)}` : ''}
                </span>
              </p>
              <code className="text-ink-2 font-mono text-xs break-all">{node.fingerprint}</code>
            </div>
            {mayAccept && (
              <button type="button" className="button" onClick={() => setChosen(node)}>
                Accept {node.name}…
              </button>
            )}
          </li>
        ))}
      </ul>
      {chosen && (
        <ConfirmDialog
          title={`Accept ${chosen.name}?`}
          keep="Not now"
          action="It is the same: accept"
          doing="Accepting…"
          failed="The node was not accepted"
          isDanger={false}
          work={() => networkApi.accept(chosen.fingerprint)}
          onClose={() => setChosen(null)}
          onDone={onChange}
        >
          <p>
            Anybody can ask under any name. Let the owner of the node read its whole fingerprint out
            to you, by telephone for example, and compare it with this one:
          </p>
          <code className="text-ink mt-2 block font-mono text-base break-all">
            {chosen.fingerprint}
          </code>
        </ConfirmDialog>
      )}
    </section>
  )
}
