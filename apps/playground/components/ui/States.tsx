import { AlertTriangle, RotateCw } from 'lucide-react'
import type { ReactNode } from 'react'

import { sentence } from '@/lib/jobs'

/**
 * Loading, empty and failed never look alike: loading is grey bars in the shape of what comes,
 * empty is a quiet sentence with what to do first, failed is red with words and a way on.
 */

/** Grey bars where content will be. */
export function Loading({ rows = 4, label = 'Loading' }: { rows?: number; label?: string }) {
  return (
    <div role="status" aria-label={label} className="flex flex-col gap-3 p-4">
      {Array.from({ length: rows }, (_, index) => (
        <div
          key={index}
          className="skeleton h-4"
          style={{ width: `${92 - ((index * 23) % 48)}%` }}
        />
      ))}
    </div>
  )
}

/** Nothing is here yet, and that is no fault. */
export function Empty({
  title,
  children,
  icon,
}: {
  title: string
  children?: ReactNode
  icon?: ReactNode
}) {
  return (
    <div className="flex flex-col items-center px-6 py-12 text-center">
      {icon && <div className="text-ink-3 mb-3">{icon}</div>}
      <p className="text-base font-semibold">{title}</p>
      {children && <div className="text-ink-2 mt-1 max-w-md text-pretty">{children}</div>}
    </div>
  )
}

/** Something went wrong: what, why, and what to do. */
export function Failed({
  title,
  message,
  hint,
  onRetry,
  children,
}: {
  title: string
  message?: string | null
  hint?: string | null | undefined
  onRetry?: (() => void) | undefined
  children?: ReactNode
}) {
  return (
    <div role="alert" className="border-bad/35 bg-bad-soft flex gap-3 rounded-md border p-3.5">
      <AlertTriangle size={17} aria-hidden className="text-bad mt-0.5 shrink-0" />
      <div className="min-w-0 flex-1">
        <p className="text-bad font-semibold">{title}</p>
        {message && <p className="mt-0.5 break-words whitespace-pre-wrap">{sentence(message)}</p>}
        {hint && <p className="text-ink-2 mt-0.5 break-words">{sentence(hint)}</p>}
        {children}
      </div>
      {onRetry && (
        <button type="button" className="button button-small shrink-0" onClick={onRetry}>
          <RotateCw size={13} aria-hidden /> Try again
        </button>
      )}
    </div>
  )
}
