import Link from 'next/link'

import { formatBytes, formatCount } from '@/lib/format'
import { bySize, type DatasetUsage } from '@/lib/storage'

/** What each dataset stores, the largest first. */
export function UsageTable({ datasets }: { datasets: readonly DatasetUsage[] }) {
  return (
    <div className="panel overflow-x-auto" role="group" aria-label="Stored tables" tabIndex={0}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">Owner</th>
            <Number name="Rows" />
            <Number name="Newest version" />
            <Number name="All versions" />
            <Number name="Only for old ones" />
            <Number name="Versions" />
            <Number name="Shards" />
          </tr>
        </thead>
        <tbody>
          {bySize(datasets).map((dataset) => (
            <tr key={dataset.id} className="hover:bg-hover">
              <td className="w-1/4">
                <Link
                  href={`/data/?id=${dataset.id}`}
                  className="font-semibold underline-offset-3 hover:underline"
                >
                  {dataset.name}
                </Link>
              </td>
              <td className="text-ink-2">{dataset.owner || '–'}</td>
              <td className="number">{formatCount(dataset.rows)}</td>
              <td className="number">{formatBytes(dataset.bytes)}</td>
              <td className="number">{formatBytes(dataset.storedBytes)}</td>
              <td className="number">{formatBytes(dataset.reclaimableBytes)}</td>
              <td className="number">{formatCount(dataset.versions)}</td>
              <td className="number whitespace-nowrap">
                {formatCount(dataset.shards)}
                {dataset.smallShards > 0 && (
                  <span className="text-ink-3"> ({formatCount(dataset.smallShards)} small)</span>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function Number({ name }: { name: string }) {
  return (
    <th scope="col" className="number">
      {name}
    </th>
  )
}
