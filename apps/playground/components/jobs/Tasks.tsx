import { plural } from '@/lib/format'
import type { TaskInfo } from '@/lib/records'

const FILLS: Record<string, string> = {
  pending: 'bg-sunken border border-line-strong',
  leased: 'bg-run-soft border border-accent',
  running: 'rope',
  done: 'bg-teal',
  failed: 'bg-bad',
  poisoned: 'bg-bad',
  cancelled: 'bg-line-strong',
}

/** Every task as a small square, and the same in words. */
export function Tasks({ tasks }: { tasks: TaskInfo[] }) {
  const counts = new Map<string, number>()
  for (const { state } of tasks) counts.set(state, (counts.get(state) ?? 0) + 1)
  const words = [...counts].map(([state, count]) => `${count} ${state}`).join(', ')
  return (
    <section className="panel p-5">
      <div className="mb-3 flex items-baseline justify-between gap-4">
        <h3 className="font-semibold">{plural(tasks.length, 'task')}</h3>
        <p className="text-ink-2 text-xs">{words}</p>
      </div>
      <div aria-hidden className="flex flex-wrap gap-1">
        {tasks.map((task) => (
          <span
            key={task.id}
            title={`${task.id} ${task.state}${task.attempts > 1 ? `, attempt ${task.attempts}` : ''}`}
            className={`h-4 rounded-sm ${tasks.length > 60 ? 'w-4' : 'min-w-4 flex-1'} ${FILLS[task.state] ?? 'bg-sunken'}`}
          />
        ))}
      </div>
    </section>
  )
}
