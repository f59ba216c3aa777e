import { ConfirmDialog } from '@/components/ui/ConfirmDialog'
import { networkApi } from '@/lib/networkApi'
import { readersOf, type SharedDataset } from '@/lib/sharing'

/** Confirms that a table becomes private. */
export function UnshareDialog({
  dataset,
  onClose,
  onDone,
}: {
  dataset: SharedDataset
  onClose: () => void
  onDone: () => void
}) {
  return (
    <ConfirmDialog
      title={`Make ${dataset.name} private?`}
      keep="Keep it shared"
      action="Make private"
      doing="Making it private…"
      failed="It is still shared"
      work={() => networkApi.unshare(dataset.dataset)}
      onClose={onClose}
      onDone={onDone}
    >
      It is shared with {readersOf(dataset)}. It disappears from the lists of other nodes, and their
      copies go. Forks that they have made stay, and so does what somebody there has saved.
    </ConfirmDialog>
  )
}
