import type { ReactNode } from 'react'

/** The heading of a part of the page, with what can be done on all of it. */
export function SectionTitle({
  id,
  title,
  children,
}: {
  id: string
  title: string
  children?: ReactNode
}) {
  return (
    <div className="mb-2 flex min-h-7 flex-wrap items-center justify-between gap-x-4 gap-y-2">
      <h2 id={id} className="eyebrow">
        {title}
      </h2>
      {children && <div className="flex flex-wrap items-center gap-2">{children}</div>}
    </div>
  )
}
