'use client'

import { TerminalSquare, Trash2 } from 'lucide-react'
import Link from 'next/link'
import { useState } from 'react'

import { fieldsOf } from '@/lib/datasets'
import { formatAgo, formatBytes, formatCount, timeMs } from '@/lib/format'
import { useNow } from '@/lib/hooks'
import type { DatasetInfo } from '@/lib/records'
import { firstRowsHref } from '@/lib/sql/names'

import { DeleteDialog } from './DeleteDialog'

/** Every table with its size. */
export function DatasetTable({ datasets }: { datasets: DatasetInfo[] }) {
  const now = useNow(30_000)
  const [doomed, setDoomed] = useState<DatasetInfo | null>(null)
  return (
    <div className="panel overflow-x-auto" role="group" aria-label="List of tables" tabIndex={0}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col" className="number">
              Rows
            </th>
            <th scope="col" className="number">
              Columns
            </th>
            <th scope="col" className="number">
              Stored
            </th>
            <th scope="col" className="number">
              Shards
            </th>
            <th scope="col">Created</th>
            <th scope="col">
              <span className="sr-only">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {datasets.map((dataset) => (
            <tr key={dataset.id} className="hover:bg-hover group">
              <td className="w-1/3">
                <Link
                  href={`/data/?id=${dataset.id}`}
                  className="font-semibold underline-offset-3 hover:underline"
                >
                  {dataset.name}
                </Link>
                {dataset.damaged && <Damage reason={dataset.damaged} />}
              </td>
              {/* Of a table whose description is lost, nothing is known but its name. */}
              {dataset.damaged && fieldsOf(dataset).length === 0 ? (
                <td colSpan={5} />
              ) : (
                <>
                  <td className="number">{formatCount(dataset.rows)}</td>
                  <td className="number">{formatCount(fieldsOf(dataset).length)}</td>
                  <td className="number">{formatBytes(dataset.bytes)}</td>
                  <td className="number">{formatCount(dataset.shards)}</td>
                  <td className="text-ink-2 whitespace-nowrap">
                    {now > 0 ? formatAgo(timeMs(dataset.createdAt), now) : ''}
                  </td>
                </>
              )}
              <td className="w-0">
                <div className="flex justify-end gap-0.5">
                  {!dataset.damaged && (
                    <Link
                      href={firstRowsHref(dataset.name)}
                      className="button button-quiet button-small"
                      aria-label={`Query ${dataset.name}`}
                      title="Query"
                    >
                      <TerminalSquare size={14} aria-hidden />
                    </Link>
                  )}
                  <button
                    type="button"
                    className="button button-quiet button-small"
                    aria-label={`Delete ${dataset.name}`}
                    title="Delete"
                    onClick={() => setDoomed(dataset)}
                  >
                    <Trash2 size={14} aria-hidden />
                  </button>
                </div>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {doomed && <DeleteDialog dataset={doomed} onClose={() => setDoomed(null)} />}
    </div>
  )
}

function Damage({ reason }: { reason: string }) {
  return (
    <p className="mt-0.5 max-w-md text-xs">
      <span className="text-bad bg-bad-soft rounded-full px-2 py-0.5 font-semibold">Damaged</span>{' '}
      <span className="text-ink-2 break-words">{reason}</span>
    </p>
  )
}
