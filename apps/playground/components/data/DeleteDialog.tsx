'use client'

import { useState } from 'react'

import { Dialog } from '@/components/ui/Dialog'
import { Failed } from '@/components/ui/States'
import { api, asApiError, type ApiError } from '@/lib/api'
import { formatBytes, plural } from '@/lib/format'
import type { DatasetInfo } from '@/lib/records'

/** Confirms the deletion of a table, and names what is deleted with it. */
export function DeleteDialog({
  dataset,
  onClose,
  onDeleted,
}: {
  dataset: DatasetInfo
  onClose: () => void
  onDeleted?: () => void
}) {
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<ApiError | null>(null)

  const remove = async () => {
    setBusy(true)
    setError(null)
    try {
      await api.deleteDataset(dataset.id)
      onClose()
      onDeleted?.()
    } catch (reason) {
      setError(asApiError(reason))
      setBusy(false)
    }
  }

  return (
    <Dialog title={`Delete ${dataset.name}?`} onClose={onClose}>
      <p className="text-ink-2">
        {dataset.damaged
          ? 'Everything that is left of the table goes'
          : `${plural(dataset.rows, 'row')} and ${formatBytes(dataset.bytes)} go`}
        , with every earlier state of the table. This cannot be undone.
      </p>
      {error && (
        <div className="mt-3">
          <Failed title="It was not deleted" message={error.message} hint={error.hint} />
        </div>
      )}
      <div className="mt-5 flex justify-end gap-2">
        <button type="button" className="button" onClick={onClose}>
          Keep it
        </button>
        <button
          type="button"
          className="button button-danger"
          disabled={busy}
          onClick={() => void remove()}
        >
          {busy ? 'Deleting…' : 'Delete'}
        </button>
      </div>
    </Dialog>
  )
}
