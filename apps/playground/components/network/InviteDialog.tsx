'use client'

import { Check, Copy } from 'lucide-react'
import { useEffect, useState } from 'react'

import { Dialog } from '@/components/ui/Dialog'
import { Failed, Loading } from '@/components/ui/States'
import { api, asApiError, type ApiError } from '@/lib/api'
import { isLocalOnly } from '@/lib/network'

type State =
  | { state: 'loading' }
  | { state: 'ready'; text: string; isLocal: boolean }
  | { state: 'failed'; error: ApiError }

/** Makes an invite when it opens, and shows the text to copy. */
export function InviteDialog({ onClose }: { onClose: () => void }) {
  const [invite, setInvite] = useState<State>({ state: 'loading' })
  useEffect(() => {
    let isOpen = true
    const set = (state: State) => isOpen && setInvite(state)
    api.invite().then(
      async ({ invite: text }) => {
        const report = await api.network().catch(() => null)
        set({ state: 'ready', text, isLocal: isLocalOnly(report?.nodes[0]?.addresses ?? ['?']) })
      },
      (reason: unknown) => set({ state: 'failed', error: asApiError(reason) }),
    )
    return () => {
      isOpen = false
    }
  }, [])
  return (
    <Dialog title="Invite a node" onClose={onClose}>
      {invite.state === 'loading' && <Loading rows={3} label="Making an invite" />}
      {invite.state === 'failed' && (
        <Failed
          title="No invite was made"
          message={invite.error.message}
          hint={invite.error.hint}
        />
      )}
      {invite.state === 'ready' && <Invite text={invite.text} isLocal={invite.isLocal} />}
    </Dialog>
  )
}

function Invite({ text, isLocal }: { text: string; isLocal: boolean }) {
  const [copied, setCopied] = useState(false)
  const copy = () => {
    // Without a secure context there is no clipboard; the text is selected by a click.
    navigator.clipboard?.writeText(text).then(
      () => setCopied(true),
      () => setCopied(false),
    )
  }
  return (
    <div className="flex flex-col gap-3">
      <p>
        One node may join with this text, within a day. Send it in a way that others cannot read.
      </p>
      <textarea
        readOnly
        aria-label="Invite"
        value={text}
        rows={6}
        onFocus={(event) => event.target.select()}
        className="field h-auto w-full resize-none py-2 font-mono text-xs break-all"
      />
      {isLocal && (
        <p className="text-warn">
          Only nodes of this machine can use it, as this node listens on a loopback address. Set{' '}
          <code className="font-mono">network.peer_host</code> for others.
        </p>
      )}
      <p className="text-ink-2">
        There: <code className="font-mono">platform net join -</code>, then paste it.
      </p>
      <div className="flex justify-end">
        <button type="button" className="button button-primary" onClick={copy}>
          {copied ? <Check size={15} aria-hidden /> : <Copy size={15} aria-hidden />}
          {copied ? 'Copied' : 'Copy'}
        </button>
      </div>
    </div>
  )
}
