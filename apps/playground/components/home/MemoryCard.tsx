'use client'

import { Failed, Loading } from '@/components/ui/States'
import { api, type NodeStats } from '@/lib/api'
import { formatBytes, formatElapsed, plural } from '@/lib/format'
import { useResource } from '@/lib/hooks'

const EVERY_MS = 2_000
const SWATCHES = ['bg-teal', 'bg-ochre', 'bg-coral', 'bg-good']

/** The node's memory: one bar to the cap, split by who uses it. */
export function MemoryCard() {
  const stats = useResource('stats', api.stats, EVERY_MS)
  return (
    <section aria-labelledby="home-memory" className="panel">
      <div className="border-line flex items-baseline justify-between gap-4 border-b px-5 py-3">
        <h2 id="home-memory" className="font-semibold">
          This node
        </h2>
        {stats.state === 'ready' && (
          <p className="text-ink-2 text-xs">
            {stats.data.version && `version ${stats.data.version} · `}up{' '}
            {formatElapsed(stats.data.uptimeSeconds)}
          </p>
        )}
      </div>
      {stats.state === 'loading' && <Loading rows={3} label="Loading the node's memory" />}
      {stats.state === 'failed' && (
        <div className="p-4">
          <Failed
            title="The node did not report its memory"
            message={stats.error.message}
            hint={stats.error.hint}
            onRetry={stats.reload}
          />
        </div>
      )}
      {stats.state === 'ready' && <Memory stats={stats.data} />}
    </section>
  )
}

interface Slice {
  name: string
  bytes: number
}

function Memory({ stats }: { stats: NodeStats }) {
  const { capBytes, usedBytes, gatewayBytes } = stats.memory
  const executors = stats.executors.map((executor, index): Slice => ({
    name: `Executor ${index + 1}`,
    bytes: executor.memoryBytes ?? 0,
  }))
  const slices: Slice[] = [
    {
      name: 'Gateway',
      bytes: gatewayBytes ?? usedBytes - executors.reduce((sum, each) => sum + each.bytes, 0),
    },
    ...executors,
  ]
  const text = `${formatBytes(usedBytes)} of ${formatBytes(capBytes)}`
  return (
    <div className="px-5 py-4">
      <p className="flex items-baseline gap-2">
        <span className="text-xl font-semibold tracking-tight">{formatBytes(usedBytes)}</span>
        <span className="text-ink-2">of the cap of {formatBytes(capBytes)}</span>
      </p>
      <div
        role="meter"
        aria-label="Memory in use"
        aria-valuemin={0}
        aria-valuemax={capBytes}
        aria-valuenow={Math.min(usedBytes, capBytes)}
        aria-valuetext={text}
        className="bg-sunken mt-3 flex h-2.5 gap-px overflow-hidden rounded-full"
      >
        {slices.map(({ name, bytes }, index) => (
          <div
            key={name}
            className={`${SWATCHES[index % SWATCHES.length]} h-full transition-[width] duration-500`}
            style={{ width: `${capBytes > 0 ? (100 * bytes) / capBytes : 0}%` }}
          />
        ))}
      </div>
      <ul className="mt-3 flex flex-wrap gap-x-5 gap-y-1">
        {slices.map(({ name, bytes }, index) => (
          <li key={name} className="flex items-center gap-1.5">
            <span
              aria-hidden
              className={`${SWATCHES[index % SWATCHES.length]} size-2 rounded-full`}
            />
            <span className="text-ink-2">{name}</span>
            <span className="font-medium">{formatBytes(bytes)}</span>
          </li>
        ))}
      </ul>
      <p className="text-ink-3 mt-3 text-xs">
        {executors.length > 0
          ? `${plural(executors.length, 'executor')} started.`
          : 'No executor is started; the first query starts one.'}{' '}
        Work that would exceed the cap is refused with an error; the machine stays responsive.
      </p>
    </div>
  )
}
