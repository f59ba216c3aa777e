'use client'

import { api } from '@/lib/api'
import { formatCount } from '@/lib/format'
import { useResource } from '@/lib/hooks'
import { summarise } from '@/lib/ingest'

/** How the file of a dataset was read: what was detected, and what had to be changed. */
export function IngestReport({ dataset }: { dataset: string }) {
  const head = useResource(dataset, (signal) => api.snapshot(dataset, 'head', signal))
  const report = head.state === 'ready' ? summarise(head.data.ingest) : null
  if (!report) return null
  const wider = report.widened.length + report.widenedMore
  return (
    <section className="panel p-5">
      <h3 className="mb-3 font-semibold">How the file was read</h3>
      <dl className="grid grid-cols-2 gap-x-6 gap-y-3 sm:grid-cols-3 lg:grid-cols-6">
        {report.facts.map(([name, value]) => (
          <div key={name} className="min-w-0">
            <dt className="text-ink-3 text-xs">{name}</dt>
            <dd className="mt-0.5 font-medium break-words" title={value}>
              {value}
            </dd>
          </div>
        ))}
      </dl>
      {report.widened.length > 0 && (
        <>
          <p className="text-warn mt-4 font-medium">
            {wider === 1 ? 'One column became wider' : `${formatCount(wider)} columns became wider`}
            , because a value did not fit
          </p>
          <ul className="mt-1 flex flex-col gap-1">
            {report.widened.map(({ column, from, to, line, value }) => (
              <li key={column + String(line)} className="text-ink-2 break-words">
                <code className="text-ink font-mono">{column}</code> {from && `from ${from} `}to{' '}
                {to}
                {line !== null && `, at line ${formatCount(line)}`}
                {value !== null && (
                  <>
                    {': '}
                    <code className="font-mono">{value}</code>
                  </>
                )}
              </li>
            ))}
            {report.widenedMore > 0 && (
              <li className="text-ink-2">And {formatCount(report.widenedMore)} more.</li>
            )}
          </ul>
        </>
      )}
      {report.notes.length > 0 && (
        <ul className="text-ink-2 mt-4 flex list-disc flex-col gap-1 pl-4">
          {report.notes.map((note) => (
            <li key={note}>{note}</li>
          ))}
        </ul>
      )}
    </section>
  )
}
