'use client'

import { KeyRound } from 'lucide-react'
import { useState, type FormEvent } from 'react'

import { Failed } from '@/components/ui/States'
import { api, asApiError, type ApiError } from '@/lib/api'
import { live } from '@/lib/live'

/** The sign-in form, for requests without a valid token. */
export function SignIn() {
  const [token, setToken] = useState('')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<ApiError | null>(null)

  const submit = async (event: FormEvent) => {
    event.preventDefault()
    setBusy(true)
    setError(null)
    try {
      await api.signIn(token.trim())
      live.retry()
    } catch (reason) {
      setError(asApiError(reason))
      setBusy(false)
    }
  }

  return (
    <div className="mx-auto w-full max-w-lg px-4 py-16 sm:px-6">
      <div className="panel p-6">
        <KeyRound size={22} aria-hidden className="text-accent mb-3" />
        <h1 className="text-lg font-semibold">This node wants to know who you are</h1>
        <p className="text-ink-2 mt-1.5">
          Open the address that <code className="text-ink font-mono">platform up</code> printed: it
          carries your token once and this browser remembers it. The token is also in{' '}
          <code className="text-ink font-mono">admin.token</code> of the node&rsquo;s data folder.
        </p>
        <form onSubmit={(event) => void submit(event)} className="mt-5">
          <label htmlFor="token" className="font-medium">
            Or paste the token
          </label>
          <div className="mt-1.5 flex gap-2">
            <input
              id="token"
              type="password"
              autoComplete="current-password"
              spellCheck={false}
              required
              placeholder="snt_…"
              className="field min-w-0 flex-1 font-mono"
              value={token}
              onChange={(event) => setToken(event.target.value)}
            />
            <button
              type="submit"
              className="button button-primary"
              disabled={busy || token.trim() === ''}
            >
              {busy ? 'Signing in…' : 'Sign in'}
            </button>
          </div>
        </form>
        {error && (
          <div className="mt-4">
            <Failed title="That did not work" message={error.message} hint={error.hint} />
          </div>
        )}
      </div>
    </div>
  )
}
