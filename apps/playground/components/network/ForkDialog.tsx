'use client'

import { useRouter } from 'next/navigation'
import { useState, type FormEvent } from 'react'

import { Dialog } from '@/components/ui/Dialog'
import { Failed } from '@/components/ui/States'
import { useAction } from '@/lib/hooks'
import { networkApi } from '@/lib/networkApi'
import type { SharedDataset } from '@/lib/sharing'

/** Makes a table of one's own that begins with the rows of another one. */
export function ForkDialog({ dataset, onClose }: { dataset: SharedDataset; onClose: () => void }) {
  const router = useRouter()
  const [name, setName] = useState('')
  const { busy, error, run } = useAction()
  const fork = (event: FormEvent) => {
    event.preventDefault()
    run(async () => {
      const made = await networkApi.fork(dataset.dataset, name.trim())
      router.push(`/data/?id=${made.id}`)
    })
  }
  return (
    <Dialog title={`Fork ${dataset.name}`} onClose={onClose}>
      <form onSubmit={fork} className="flex flex-col gap-3">
        <p className="text-ink-2">
          A table of this node with the same rows. Its shards are fetched if they are not here; from
          then on neither table has changes of the other.
        </p>
        <label className="flex flex-col gap-1">
          <span className="text-ink-2 text-xs">Name of the new table</span>
          <input
            className="field w-full"
            value={name}
            onChange={(event) => setName(event.target.value)}
            autoComplete="off"
            spellCheck={false}
          />
        </label>
        {error && <Failed title="It was not forked" message={error.message} hint={error.hint} />}
        <div className="flex justify-end gap-2">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button
            type="submit"
            className="button button-primary"
            disabled={busy || name.trim() === ''}
          >
            {busy ? 'Forking…' : 'Fork'}
          </button>
        </div>
      </form>
    </Dialog>
  )
}
