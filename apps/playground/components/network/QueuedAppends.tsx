'use client'

import { useState } from 'react'

import { ConfirmDialog } from '@/components/ui/ConfirmDialog'
import { Failed } from '@/components/ui/States'
import {
  mayBeCommitted,
  mayRetry,
  removalOf,
  stateOf,
  type AppendTone,
  type QueuedAppend,
} from '@/lib/appendQueue'
import { formatAgo, formatBytes, formatDate, plural } from '@/lib/format'
import { useAction, useNow, useResource } from '@/lib/hooks'
import type { NetworkNode } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'

import { SectionTitle } from './SectionTitle'

const EVERY_MS = 5_000
/** What a browser renders at once. */
const ROWS_MAX = 100

const TONES: Record<AppendTone, string> = {
  warn: 'text-warn',
  bad: 'text-bad',
  unknown: 'text-ink-3',
}

/** The appends that wait for other nodes, or were not committed; nothing while there are none. */
export function QueuedAppends({ nodes, mayWrite }: { nodes: NetworkNode[]; mayWrite: boolean }) {
  const queue = useResource('queue', networkApi.queue, EVERY_MS)
  const now = useNow(EVERY_MS)
  const [removed, setRemoved] = useState<QueuedAppend | null>(null)
  const all = queue.state === 'ready' ? queue.data : []
  const error = queue.state === 'loading' ? null : queue.error
  if (all.length === 0 && error === null) return null
  const names = new Map(nodes.map(({ id, name }) => [id, name]))
  return (
    <section aria-labelledby="queue" className="min-w-0">
      <SectionTitle id="queue" title="Queued appends">
        <span className="text-ink-3 text-xs">{plural(all.length, 'append')}</span>
      </SectionTitle>
      {error && (
        <Failed
          title="The node did not report what is queued"
          message={error.message}
          hint={error.hint}
          onRetry={queue.reload}
        />
      )}
      {all.length > 0 && (
        <div className="panel panel-long" role="group" aria-label="Queued appends" tabIndex={0}>
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Table</th>
                <th scope="col">State</th>
                <th scope="col">Statement</th>
                <th scope="col">User</th>
                <th scope="col">Queued</th>
                <th scope="col">
                  <span className="sr-only">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {all.slice(0, ROWS_MAX).map((each) => (
                <Row
                  key={each.id}
                  append={each}
                  writer={names.get(each.writer) ?? each.writer.slice(0, 16)}
                  now={now}
                  mayWrite={mayWrite}
                  onRemove={() => setRemoved(each)}
                  onChange={queue.reload}
                />
              ))}
            </tbody>
          </table>
          {all.length > ROWS_MAX && (
            <p className="text-ink-2 px-5 py-2 text-xs">
              {all.length - ROWS_MAX} more: <code>platform net queue</code> lists them.
            </p>
          )}
        </div>
      )}
      {removed && (
        <ConfirmDialog
          title={`Remove the append to ${removed.dataset}?`}
          keep="Keep it"
          action="Remove"
          doing="Removing…"
          failed="It was not removed"
          work={() => networkApi.removeAppend(removed.id, mayBeCommitted(removed))}
          onClose={() => setRemoved(null)}
          onDone={queue.reload}
        >
          {removalOf(removed)}
        </ConfirmDialog>
      )}
    </section>
  )
}

function Row({
  append,
  writer,
  now,
  mayWrite,
  onRemove,
  onChange,
}: {
  append: QueuedAppend
  writer: string
  now: number
  mayWrite: boolean
  onRemove: () => void
  onChange: () => void
}) {
  const { busy, error, run } = useAction()
  const state = stateOf(append)
  return (
    <tr className="hover:bg-hover">
      <th scope="row">
        {append.dataset}
        <span className="text-ink-3 block text-xs font-normal">written by {writer}</span>
      </th>
      <td className="min-w-44">
        <span className={TONES[state.tone]}>{state.text}</span>
        {append.error && (
          <span className="text-ink-2 block text-xs break-words">{append.error.error}</span>
        )}
        {error && (
          <span role="alert" className="text-bad block text-xs">
            {error.message}
          </span>
        )}
      </td>
      <td className="max-w-72">
        <code className="block truncate font-mono text-xs" title={append.statement}>
          {append.statement}
        </code>
        {append.bytes > 0 && (
          <span className="text-ink-3 block text-xs">{formatBytes(append.bytes)} of rows</span>
        )}
      </td>
      <td className="text-ink-2">{append.user || 'admin'}</td>
      <td className="text-ink-2 whitespace-nowrap">
        {now > 0 ? formatAgo(append.queuedAt * 1000, now) : ''}
        <span className="text-ink-3 block text-xs">
          until {formatDate(append.expiresAt * 1000)}
        </span>
      </td>
      <td className="w-0">
        {mayWrite && (
          <div className="flex justify-end gap-1">
            {mayRetry(append) && (
              <button
                type="button"
                className="button button-quiet button-small"
                disabled={busy}
                onClick={() => run(() => networkApi.retryAppend(append.id), onChange)}
              >
                Queue again<span className="sr-only"> the append to {append.dataset}</span>
              </button>
            )}
            <button type="button" className="button button-quiet button-small" onClick={onRemove}>
              Remove…<span className="sr-only"> the append to {append.dataset}</span>
            </button>
          </div>
        )}
      </td>
    </tr>
  )
}
