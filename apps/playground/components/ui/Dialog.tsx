'use client'

import { X } from 'lucide-react'
import { useEffect, useId, useRef, type ReactNode } from 'react'

/** A modal dialog on the platform's own element: focus stays inside, Escape closes, focus returns. */
export function Dialog({
  title,
  onClose,
  children,
  wide = false,
}: {
  title: string
  onClose: () => void
  children: ReactNode
  wide?: boolean
}) {
  const element = useRef<HTMLDialogElement>(null)
  const titleId = useId()

  useEffect(() => {
    const dialog = element.current
    if (dialog && !dialog.open) dialog.showModal()
    return () => dialog?.close()
  }, [])

  return (
    <dialog
      ref={element}
      aria-labelledby={titleId}
      onClose={onClose}
      onClick={(event) => event.target === element.current && element.current.close()}
      className={`fade-in text-ink bg-surface m-auto w-full ${wide ? 'max-w-2xl' : 'max-w-md'} border-line rounded-lg border p-0 shadow-(--shadow-lifted) backdrop:bg-[rgb(10_12_10/0.45)]`}
    >
      <div className="flex items-center justify-between gap-4 px-5 pt-4">
        <h2 id={titleId} className="text-base font-semibold">
          {title}
        </h2>
        <button
          type="button"
          aria-label="Close"
          className="button button-quiet button-icon button-small"
          onClick={() => element.current?.close()}
        >
          <X size={15} aria-hidden />
        </button>
      </div>
      <div className="px-5 pt-2 pb-5">{children}</div>
    </dialog>
  )
}
