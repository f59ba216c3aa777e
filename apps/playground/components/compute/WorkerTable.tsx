import { Cpu } from 'lucide-react'

import { StateChip } from '@/components/ui/StateChip'
import { Empty } from '@/components/ui/States'
import { formatCount } from '@/lib/format'
import { trustText, type WorkersReport } from '@/lib/workers'

/** All workers of the node, and how their results are checked. */
export function WorkerTable({ report }: { report: WorkersReport }) {
  return (
    <div className="flex flex-col gap-3">
      <p className="text-ink-2">{trustText(report)}</p>
      {report.workers.length === 0 ? (
        <div className="panel">
          <Empty title="No workers are connected" icon={<Cpu size={22} aria-hidden />}>
            Let this tab compute, or start one with <code>npx @sennit/elytra worker</code> and a
            token of <code>platform workers invite</code>. Jobs with the engine <code>browser</code>{' '}
            wait for one.
          </Empty>
        </div>
      ) : (
        <Workers report={report} />
      )}
      {report.excluded.length > 0 && (
        <ul className="text-bad list-disc pl-5">
          {report.excluded.map(({ token, reason, doubtedJobs }) => (
            <li key={token}>
              Token <code>{token}</code> is not admitted any more: {reason}
              {doubtedJobs.length > 0 &&
                `; jobs that had ended with its rows are checked: ${doubtedJobs.join(', ')}`}
            </li>
          ))}
        </ul>
      )}
    </div>
  )
}

function Workers({ report }: { report: WorkersReport }) {
  return (
    <div className="panel overflow-x-auto" role="group" aria-label="Workers" tabIndex={0}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">Worker</th>
            <th scope="col">Kind</th>
            <th scope="col">Engine</th>
            <th scope="col">State</th>
            <th scope="col">Token</th>
            <th scope="col" className="number">
              Running
            </th>
            <th scope="col" className="number">
              Finished
            </th>
            <th scope="col" className="number">
              Failed
            </th>
          </tr>
        </thead>
        <tbody>
          {report.workers.map((worker) => (
            <tr key={worker.id} className="hover:bg-hover">
              <td>
                <code>{worker.id}</code>
              </td>
              <td>{worker.kind}</td>
              <td className="text-ink-2 whitespace-nowrap">{worker.engine}</td>
              <td>
                <StateChip state={worker.state} />
              </td>
              <td>
                <code>{worker.token}</code>
              </td>
              <td className="number">{formatCount(worker.running)}</td>
              <td className="number">{formatCount(worker.finished)}</td>
              <td className="number">{formatCount(worker.failed)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}
