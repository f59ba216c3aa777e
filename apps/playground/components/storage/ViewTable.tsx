'use client'

import Link from 'next/link'

import { Failed } from '@/components/ui/States'
import { api } from '@/lib/api'
import { useResource } from '@/lib/hooks'
import { firstRowsHref } from '@/lib/sql/names'

const EVERY_MS = 10_000

/** The views with their queries; nothing while there are none. */
export function ViewTable() {
  const views = useResource('views', api.views, EVERY_MS)
  if (views.state === 'loading' || (views.state === 'ready' && views.data.length === 0)) return null
  return (
    <section aria-labelledby="views">
      <h2 id="views" className="eyebrow mb-2">
        Views
      </h2>
      {views.state === 'failed' ? (
        <Failed
          title="The node did not list its views"
          message={views.error.message}
          hint={views.error.hint}
          onRetry={views.reload}
        />
      ) : (
        <div className="panel overflow-x-auto" role="group" aria-label="Views" tabIndex={0}>
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Owner</th>
                <th scope="col">Query</th>
              </tr>
            </thead>
            <tbody>
              {views.data.map((view) => (
                <tr key={view.id} className="hover:bg-hover">
                  <td>
                    <Link
                      href={firstRowsHref(view.name)}
                      className="font-semibold underline-offset-3 hover:underline"
                    >
                      {view.name}
                    </Link>
                  </td>
                  <td className="text-ink-2">{view.owner || '–'}</td>
                  <td className="max-w-xl">
                    {view.damaged ? (
                      <span className="text-bad break-words">{view.damaged}</span>
                    ) : (
                      <code className="text-xs break-words">
                        {view.sql.replace(/\s+/g, ' ') || 'hidden by a policy'}
                      </code>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  )
}
