'use client'

import { useEffect, useRef, useState, type FormEvent } from 'react'

import { CodeField } from '@/components/ui/CodeField'
import { Failed } from '@/components/ui/States'
import { useAction } from '@/lib/hooks'
import { networkApi } from '@/lib/networkApi'

import { SectionTitle } from './SectionTitle'

/** Joins a network with an invite, or by asking a node whose owner accepts this one. */
export function JoinForm({ onChange }: { onChange: () => void }) {
  return (
    <section aria-labelledby="join">
      <SectionTitle id="join" title="Join" />
      <div className="grid gap-4 lg:grid-cols-2">
        <InviteForm onChange={onChange} />
        <AskForm onChange={onChange} />
      </div>
    </section>
  )
}

function InviteForm({ onChange }: { onChange: () => void }) {
  const [text, setText] = useState('')
  const { busy, error, run } = useAction()
  const join = (event: FormEvent) => {
    event.preventDefault()
    run(() => networkApi.join(text.trim()), onChange)
  }
  return (
    <form onSubmit={join} className="panel flex flex-col gap-3 px-5 py-4">
      <p className="font-semibold">With an invite</p>
      <CodeField
        label="Invite, which an admin of the network made"
        value={text}
        onChange={setText}
        placeholder="sennit-invite:…"
      />
      {error && <Failed title="This node did not join" message={error.message} hint={error.hint} />}
      <div className="mt-auto flex justify-end">
        <button type="submit" className="button" disabled={busy || text.trim() === ''}>
          {busy ? 'Joining…' : 'Join'}
        </button>
      </div>
    </form>
  )
}

function AskForm({ onChange }: { onChange: () => void }) {
  const [address, setAddress] = useState('')
  const [node, setNode] = useState('')
  const [waits, setWaits] = useState(false)
  const { busy, error, run } = useAction()
  const asking = useRef<AbortController | null>(null)
  useEffect(() => () => asking.current?.abort(), [])
  const ask = (event: FormEvent) => {
    event.preventDefault()
    const control = new AbortController()
    asking.current = control
    setWaits(false)
    const work = () =>
      networkApi
        .askToJoin(address.trim(), node.trim(), () => setWaits(true), control.signal)
        .finally(() => setWaits(false))
    run(work, onChange)
  }
  return (
    <form onSubmit={ask} className="panel flex flex-col gap-3 px-5 py-4">
      <p className="font-semibold">By asking a node, whose owner accepts this one</p>
      <div className="grid gap-3 sm:grid-cols-2">
        <CodeField
          label="Address of a node"
          value={address}
          onChange={setAddress}
          placeholder="oslo.example.org:8601"
        />
        <CodeField
          label="Its id"
          value={node}
          onChange={setNode}
          placeholder="64 digits, as its page Network shows"
        />
      </div>
      {waits && (
        <p role="status" className="text-warn">
          Waiting until the owner of that node accepts this one there. Read your fingerprint, which
          is below, out to them.
        </p>
      )}
      {error && <Failed title="This node did not join" message={error.message} hint={error.hint} />}
      <div className="mt-auto flex justify-end gap-2">
        {busy && (
          <button type="button" className="button" onClick={() => asking.current?.abort()}>
            Stop
          </button>
        )}
        <button
          type="submit"
          className="button"
          disabled={busy || address.trim() === '' || node.trim() === ''}
        >
          {busy ? 'Asking…' : 'Ask to join'}
        </button>
      </div>
    </form>
  )
}
