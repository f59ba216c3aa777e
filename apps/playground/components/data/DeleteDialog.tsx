'use client'

import { ConfirmDialog } from '@/components/ui/ConfirmDialog'
import { api } from '@/lib/api'
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
  return (
    <ConfirmDialog
      title={`Delete ${dataset.name}?`}
      keep="Keep it"
      action="Delete"
      doing="Deleting…"
      failed="It was not deleted"
      work={() => api.deleteDataset(dataset.id)}
      onClose={onClose}
      onDone={onDeleted}
    >
      {dataset.damaged
        ? 'Everything that is left of the table goes'
        : `${plural(dataset.rows, 'row')} and ${formatBytes(dataset.bytes)} go`}
      , with every earlier state of the table. This cannot be undone.
    </ConfirmDialog>
  )
}
