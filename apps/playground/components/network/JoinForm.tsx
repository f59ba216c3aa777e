'use client'

import { useState, type FormEvent } from 'react'

import { Failed } from '@/components/ui/States'
import { api, asApiError, type ApiError } from '@/lib/api'

/** Joins a network with an invite. */
export function JoinForm({ onChange }: { onChange: () => void }) {
  const [text, setText] = useState('')
  const [isJoining, setJoining] = useState(false)
  const [error, setError] = useState<ApiError | null>(null)
  const join = (event: FormEvent) => {
    event.preventDefault()
    setError(null)
    setJoining(true)
    api
      .joinNetwork(text.trim())
      .then(onChange, (reason: unknown) => setError(asApiError(reason)))
      .finally(() => setJoining(false))
  }
  return (
    <section aria-labelledby="join">
      <h2 id="join" className="eyebrow mb-2">
        Join
      </h2>
      {error && (
        <div className="mb-3">
          <Failed title="This node did not join" message={error.message} hint={error.hint} />
        </div>
      )}
      <form onSubmit={join} className="panel flex flex-wrap items-end gap-3 px-5 py-4">
        <label className="flex min-w-0 flex-1 basis-72 flex-col gap-1">
          <span className="text-ink-2 text-xs">Invite</span>
          <input
            className="field w-full font-mono text-xs"
            value={text}
            onChange={(event) => setText(event.target.value)}
            placeholder="sennit-invite:…"
            autoComplete="off"
            spellCheck={false}
          />
        </label>
        <button type="submit" className="button" disabled={isJoining || text.trim() === ''}>
          {isJoining ? 'Joining…' : 'Join'}
        </button>
      </form>
    </section>
  )
}
