'use client'

import type { ReactNode } from 'react'

import { Dialog } from '@/components/ui/Dialog'
import { Failed } from '@/components/ui/States'
import { useAction } from '@/lib/hooks'

/** Asks before a change that cannot be undone, or that needs a second look, and makes it. */
export function ConfirmDialog({
  title,
  children,
  keep,
  action,
  doing,
  failed,
  isReady = true,
  isDanger = true,
  work,
  onClose,
  onDone,
}: {
  title: string
  /** What happens, in sentences. */
  children: ReactNode
  /** The button that changes nothing. */
  keep: string
  action: string
  /** The button's text while it is done. */
  doing: string
  /** The title of an error. */
  failed: string
  /** Whether all is filled in. */
  isReady?: boolean
  /** Whether it removes something. */
  isDanger?: boolean
  work: () => Promise<unknown>
  onClose: () => void
  onDone?: (() => void) | undefined
}) {
  const { busy, error, run } = useAction()
  return (
    <Dialog title={title} onClose={onClose}>
      <div className="text-ink-2">{children}</div>
      {error && (
        <div className="mt-3">
          <Failed title={failed} message={error.message} hint={error.hint} />
        </div>
      )}
      <div className="mt-5 flex justify-end gap-2">
        <button type="button" className="button" onClick={onClose}>
          {keep}
        </button>
        <button
          type="button"
          className={`button ${isDanger ? 'button-danger' : 'button-primary'}`}
          disabled={busy || !isReady}
          onClick={() =>
            run(work, () => {
              onClose()
              onDone?.()
            })
          }
        >
          {busy ? doing : action}
        </button>
      </div>
    </Dialog>
  )
}
