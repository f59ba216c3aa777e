'use client'

import { Check, Copy } from 'lucide-react'
import { useState, type FormEvent } from 'react'

import { Dialog } from '@/components/ui/Dialog'
import { Failed } from '@/components/ui/States'
import { useAction } from '@/lib/hooks'
import { isLocalOnly } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'

const HOUR = 3600
const TIMES = { '1 hour': HOUR, '1 day': 24 * HOUR, '1 week': 7 * 24 * HOUR } as const
type Time = keyof typeof TIMES

interface Made {
  text: string
  time: Time
  isLocal: boolean
}

/** Makes an invite, and shows its text once. */
export function InviteDialog({ isFirst, onClose }: { isFirst: boolean; onClose: () => void }) {
  const [made, setMade] = useState<Made | null>(null)
  return (
    <Dialog title="Invite a node" onClose={onClose}>
      {made ? <Invite made={made} /> : <InviteForm isFirst={isFirst} onMade={setMade} />}
    </Dialog>
  )
}

function InviteForm({ isFirst, onMade }: { isFirst: boolean; onMade: (made: Made) => void }) {
  const [time, setTime] = useState<Time>('1 day')
  const [admin, setAdmin] = useState(false)
  const { busy, error, run } = useAction()
  const make = (event: FormEvent) => {
    event.preventDefault()
    run(async () => {
      const { invite } = await networkApi.invite(TIMES[time], admin)
      const report = await networkApi.show().catch(() => null)
      onMade({ text: invite, time, isLocal: isLocalOnly(report?.nodes[0]?.addresses ?? ['?']) })
    })
  }
  return (
    <form onSubmit={make} className="flex flex-col gap-3">
      <p className="text-ink-2">
        {isFirst
          ? 'The first invite founds a network, with this node as its founder.'
          : 'An invite admits one node, once.'}
      </p>
      <label className="flex flex-col gap-1">
        <span className="text-ink-2 text-xs">It can be used for</span>
        <select
          className="field"
          value={time}
          onChange={(event) => setTime(event.target.value as Time)}
        >
          {Object.keys(TIMES).map((each) => (
            <option key={each}>{each}</option>
          ))}
        </select>
      </label>
      <label className="flex items-start gap-2">
        <input
          type="checkbox"
          className="accent-accent mt-0.5"
          checked={admin}
          onChange={(event) => setAdmin(event.target.checked)}
        />
        <span>
          The node becomes an admin
          <span className="text-ink-2 block text-xs">
            It may admit other nodes and revoke those that are no admins.
          </span>
        </span>
      </label>
      {error && <Failed title="No invite was made" message={error.message} hint={error.hint} />}
      <div className="flex justify-end">
        <button type="submit" className="button button-primary" disabled={busy}>
          {busy ? 'Making an invite…' : 'Make an invite'}
        </button>
      </div>
    </form>
  )
}

function Invite({ made }: { made: Made }) {
  const [copied, setCopied] = useState(false)
  const copy = () => {
    // Without a secure context there is no clipboard; the text is selected by a click.
    navigator.clipboard?.writeText(made.text).then(
      () => setCopied(true),
      () => setCopied(false),
    )
  }
  return (
    <div className="flex flex-col gap-3">
      <p>
        One node may join with this text, within {made.time}. Send it in a way that others cannot
        read. It is not shown again.
      </p>
      <textarea
        readOnly
        aria-label="Invite"
        value={made.text}
        rows={6}
        onFocus={(event) => event.target.select()}
        className="field h-auto w-full resize-none py-2 font-mono text-xs break-all"
      />
      {made.isLocal && (
        <p className="text-warn">
          Only nodes of this machine can use it, as this node listens on a loopback address. Set{' '}
          <code className="font-mono">network.peer_host</code> for others.
        </p>
      )}
      <p className="text-ink-2">
        There: <code className="font-mono">platform net join -</code>, then paste it; or on the page
        Network.
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
