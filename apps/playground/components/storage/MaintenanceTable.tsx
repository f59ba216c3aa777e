'use client'

import { Play } from 'lucide-react'
import { useState } from 'react'

import { Failed } from '@/components/ui/States'
import { api, asApiError, type ApiError } from '@/lib/api'
import { formatAgo, formatCount, formatElapsed, plural } from '@/lib/format'
import { useNow } from '@/lib/hooks'
import type { TaskState } from '@/lib/storage'

const DAY = 86_400

const TEXTS: Record<string, string> = {
  scrub: 'reads and verifies every object',
  compact: 'makes small shards larger ones',
  statistics: 'completes statistics of old shards',
  expire: 'removes versions that no rule keeps',
  sweep: 'deletes objects that nothing uses',
}

/** Each task, when it ran and runs next; admins may run one now. */
export function MaintenanceTable({
  tasks,
  mayRun,
  onChange,
}: {
  tasks: readonly TaskState[]
  mayRun: boolean
  onChange: () => void
}) {
  const now = useNow(5_000)
  const [error, setError] = useState<ApiError | null>(null)
  const run = (task: string) => {
    setError(null)
    api.runMaintenance(task).then(onChange, (reason: unknown) => setError(asApiError(reason)))
  }
  return (
    <>
      {error && (
        <div className="mb-3">
          <Failed title="The task was not started" message={error.message} hint={error.hint} />
        </div>
      )}
      <div className="panel overflow-x-auto" role="group" aria-label="Tasks" tabIndex={0}>
        <table className="table">
          <thead>
            <tr>
              <th scope="col">Task</th>
              <th scope="col">Last run</th>
              <th scope="col">Next run</th>
              <th scope="col" className="number">
                Changed
              </th>
              <th scope="col" className="number">
                Skipped
              </th>
              <th scope="col">
                <span className="sr-only">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {tasks.map((task) => (
              <tr key={task.task} className="hover:bg-hover">
                <td>
                  <span className="font-semibold">{task.task}</span>{' '}
                  <span className="text-ink-2">{TEXTS[task.task] ?? ''}</span>
                  {task.problem && <p className="text-bad text-xs break-words">{task.problem}</p>}
                </td>
                <td className="text-ink-2 whitespace-nowrap">
                  {task.finishedAt > 0 && now > 0 ? formatAgo(task.finishedAt * 1000, now) : '–'}
                </td>
                <td className="text-ink-2 whitespace-nowrap">{nextRun(task, now)}</td>
                <td className="number">{formatCount(task.changed)}</td>
                <td className="number">{formatCount(task.skipped)}</td>
                <td className="w-0">
                  {mayRun && (
                    <button
                      type="button"
                      className="button button-quiet button-small"
                      aria-label={`Run ${task.task} now`}
                      title="Run now"
                      disabled={task.running}
                      onClick={() => run(task.task)}
                    >
                      <Play size={14} aria-hidden />
                    </button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  )
}

function nextRun(task: TaskState, now: number): string {
  if (task.running) return 'running'
  if (task.periodSeconds === 0) return 'on request'
  if (task.nextAt === 0 || now === 0) return '–'
  const seconds = task.nextAt - now / 1000
  if (seconds <= 0) return 'now'
  return `in ${seconds < 2 * DAY ? formatElapsed(seconds) : plural(Math.round(seconds / DAY), 'day')}`
}
