'use client'

import { useState } from 'react'

import { ConfirmDialog } from '@/components/ui/ConfirmDialog'
import type { NetworkReport } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'
import type { SharedDataset } from '@/lib/sharing'

/** Lets another node become the writer of a table. */
export function OfferDialog({
  dataset,
  report,
  onClose,
  onDone,
}: {
  dataset: SharedDataset
  report: NetworkReport
  onClose: () => void
  onDone: () => void
}) {
  const others = report.nodes.slice(1).map(({ name }) => name)
  const readers = dataset.nodes === null ? others : others.filter((n) => dataset.nodes?.includes(n))
  const [node, setNode] = useState('')
  return (
    <ConfirmDialog
      title={`Hand ${dataset.name} over`}
      keep="Keep writing it here"
      action="Offer it"
      doing="Offering…"
      failed="It was not offered"
      isReady={node !== ''}
      isDanger={false}
      work={() => networkApi.handOver(dataset.dataset, node)}
      onClose={onClose}
      onDone={onDone}
    >
      <p>
        Another node writes it from then on, and this one reads it. An admin accepts that there;
        until then nothing changes, and it can be undone.
      </p>
      <label className="mt-3 flex flex-col gap-1">
        <span className="text-xs">Node that is to write it</span>
        <select className="field" value={node} onChange={(event) => setNode(event.target.value)}>
          <option value="">Choose a node that it is shared with</option>
          {readers.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
    </ConfirmDialog>
  )
}

/** Makes this node the writer of a table that its writer has offered to it. */
export function AcceptDialog({
  dataset,
  onClose,
  onDone,
}: {
  dataset: SharedDataset
  onClose: () => void
  onDone: () => void
}) {
  return (
    <ConfirmDialog
      title={`Write ${dataset.name} at this node?`}
      keep="Not now"
      action="Accept it"
      doing="Accepting…"
      failed="It is not handed over"
      isDanger={false}
      work={() => networkApi.acceptHandOver(dataset.dataset)}
      onClose={onClose}
      onDone={onDone}
    >
      {dataset.writer} must have offered it to this node. Its shards are fetched first; then this
      node writes it, you own it, and it counts for your quota here.
    </ConfirmDialog>
  )
}

/** Ends a hand-over that is not signed, or forgets why one was refused. */
export function UndoDialog({
  dataset,
  onClose,
  onDone,
}: {
  dataset: SharedDataset
  onClose: () => void
  onDone: () => void
}) {
  const writer = dataset.writer ?? 'this node'
  return (
    <ConfirmDialog
      title={`End the hand-over of ${dataset.name}?`}
      keep="Leave it"
      action="End it"
      doing="Ending it…"
      failed="It was not ended"
      work={() => networkApi.undoHandOver(dataset.dataset)}
      onClose={onClose}
      onDone={onDone}
    >
      It stays a table that {writer} writes.
    </ConfirmDialog>
  )
}
