'use client'

import { useEffect, useRef, useState } from 'react'

import { Dialog } from '@/components/ui/Dialog'
import { Failed } from '@/components/ui/States'
import { useAction, useResource } from '@/lib/hooks'
import { relationOf, type NearbyNode } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'

import { SectionTitle } from './SectionTitle'

const EVERY_MS = 5_000

/** The nodes that are announced on the local network, for a node that searches it. */
export function NearbyNodes({
  mayJoin,
  onChange,
}: {
  /** Whether this node is in no network yet. */
  mayJoin: boolean
  onChange: () => void
}) {
  const nearby = useResource('nearby', networkApi.nearby, EVERY_MS)
  const [chosen, setChosen] = useState<NearbyNode | null>(null)
  if (nearby.state !== 'ready') return null
  const { nodes, problem } = nearby.data
  return (
    <section aria-labelledby="nearby" className="min-w-0">
      <SectionTitle id="nearby" title="Found nearby" />
      <div className="panel">
        {nodes.length === 0 && (
          <p className="text-ink-2 px-5 py-3">No other node is announced on this local network.</p>
        )}
        {nodes.length > 0 && (
          <ul aria-label="Nodes nearby" className="divide-line divide-y">
            {nodes.map((node) => (
              <li key={node.id} className="flex flex-wrap items-center gap-x-6 gap-y-2 px-5 py-3">
                <div className="min-w-0 flex-1 basis-60">
                  <p>
                    <span className="font-semibold">{node.name}</span>{' '}
                    <span className="text-ink-3 text-xs">{relationOf(node)}</span>
                  </p>
                  <code className="text-ink-2 font-mono text-xs break-all">
                    {node.addresses.join(', ')}
                  </code>
                </div>
                {mayJoin && node.addresses.length > 0 && (
                  <button type="button" className="button" onClick={() => setChosen(node)}>
                    Ask {node.name} to join…
                  </button>
                )}
              </li>
            ))}
          </ul>
        )}
        {problem && (
          <p className="border-line text-ink-2 border-t px-5 py-2 text-xs">
            This node is not announced: {problem}.
          </p>
        )}
      </div>
      {chosen && <AskDialog node={chosen} onClose={() => setChosen(null)} onDone={onChange} />}
    </section>
  )
}

/** Asks a node that was found to be admitted; the announcement is not trusted, the fingerprint is compared. */
function AskDialog({
  node,
  onClose,
  onDone,
}: {
  node: NearbyNode
  onClose: () => void
  onDone: () => void
}) {
  const [waits, setWaits] = useState(false)
  const { busy, error, run } = useAction()
  const asking = useRef<AbortController | null>(null)
  useEffect(() => () => asking.current?.abort(), [])
  const ask = () => {
    const control = new AbortController()
    asking.current = control
    const work = () =>
      networkApi
        .askToJoin(node.addresses[0] ?? '', node.id, () => setWaits(true), control.signal)
        .finally(() => setWaits(false))
    run(work, () => {
      onClose()
      onDone()
    })
  }
  return (
    <Dialog title={`Ask ${node.name} to join its network`} onClose={onClose}>
      <div className="text-ink-2">
        <p>
          Anybody on the local network can announce any name. Let the owner of the node read its
          fingerprint out to you, and compare it with this one:
        </p>
        <code className="text-ink mt-2 block font-mono text-base break-all">
          {node.fingerprint}
        </code>
      </div>
      {waits && (
        <p role="status" className="text-warn mt-3">
          Waiting until the owner of that node accepts this one there. Read your fingerprint, which
          is on this page, out to them.
        </p>
      )}
      {error && (
        <div className="mt-3">
          <Failed title="This node did not join" message={error.message} hint={error.hint} />
        </div>
      )}
      <div className="mt-5 flex justify-end gap-2">
        <button type="button" className="button" onClick={onClose}>
          {busy ? 'Stop' : 'Not now'}
        </button>
        <button type="button" className="button button-primary" disabled={busy} onClick={ask}>
          {busy ? 'Asking…' : 'It is the same: ask to join'}
        </button>
      </div>
    </Dialog>
  )
}
