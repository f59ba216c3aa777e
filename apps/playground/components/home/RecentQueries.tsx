'use client'

import Link from 'next/link'

import { Loading } from '@/components/ui/States'
import { formatAgo, formatElapsed, plural } from '@/lib/format'
import { useNow, useStore } from '@/lib/hooks'
import { history } from '@/lib/sql/history'
import { queryHref } from '@/lib/sql/names'

const SHOWN = 6

/** The most recent queries of this browser. */
export function RecentQueries() {
  const entries = useStore(history)
  const now = useNow(30_000)
  return (
    <section aria-labelledby="home-queries" className="panel">
      <h2 id="home-queries" className="border-line border-b px-5 py-3 font-semibold">
        Recent queries
      </h2>
      {entries === null && <Loading rows={2} label="Loading the history" />}
      {entries?.length === 0 && (
        <p className="text-ink-2 px-5 py-6 text-center">
          Queries you run in this browser are kept here.
        </p>
      )}
      <ul className="divide-line divide-y">
        {entries?.slice(0, SHOWN).map((entry) => (
          <li key={entry.id}>
            <Link
              href={queryHref(entry.sql)}
              className="hover:bg-hover flex items-baseline gap-4 px-5 py-2 -outline-offset-2"
            >
              <code className="min-w-0 flex-1 truncate font-mono text-xs">
                {entry.sql.replace(/\s+/g, ' ')}
              </code>
              <span className="text-ink-3 shrink-0 text-xs">
                {entry.outcome === 'done' ? (
                  plural(entry.rows ?? 0, 'row')
                ) : (
                  <span className={entry.outcome === 'failed' ? 'text-bad' : 'text-warn'}>
                    {entry.outcome}
                  </span>
                )}
                {` · ${formatElapsed(entry.elapsedMs / 1000)}`}
                {now > 0 && ` · ${formatAgo(entry.atMs, now)}`}
              </span>
            </Link>
          </li>
        ))}
      </ul>
    </section>
  )
}
