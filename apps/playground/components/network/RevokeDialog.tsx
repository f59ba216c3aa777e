'use client'

import { useState } from 'react'

import { ConfirmDialog } from '@/components/ui/ConfirmDialog'
import type { NetworkNode } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'

/** Confirms that a node is removed for ever; its name is typed, as nothing brings it back. */
export function RevokeDialog({
  node,
  onClose,
  onDone,
}: {
  node: NetworkNode
  onClose: () => void
  onDone: () => void
}) {
  const [typed, setTyped] = useState('')
  return (
    <ConfirmDialog
      title={`Revoke ${node.name}?`}
      keep="Keep it"
      action="Revoke for ever"
      doing="Revoking…"
      failed="It was not revoked"
      isReady={typed.trim() === node.name}
      work={() => networkApi.revoke(node.id)}
      onClose={onClose}
      onDone={onDone}
    >
      <p>
        All nodes close their connections to it and accept it no more, under this key. It keeps what
        it received before; copies that only it has are lost to the others. This cannot be undone.
      </p>
      <code className="mt-2 block font-mono text-xs break-all">{node.fingerprint}</code>
      <label className="mt-3 flex flex-col gap-1">
        <span className="text-xs">
          Type <strong className="text-ink font-semibold">{node.name}</strong> to confirm
        </span>
        <input
          className="field w-full"
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
          autoComplete="off"
          spellCheck={false}
        />
      </label>
    </ConfirmDialog>
  )
}
