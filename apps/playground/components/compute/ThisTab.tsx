'use client'

import { Cpu, LogOut, Pause, Play } from 'lucide-react'
import { useState } from 'react'

import type { WorkerState } from '@sennit/elytra'

import { StateChip } from '@/components/ui/StateChip'
import { Failed } from '@/components/ui/States'
import { computing, join, leave, pauseByHand } from '@/lib/compute'
import { formatBytes, formatCount } from '@/lib/format'
import { useStore } from '@/lib/hooks'

import { ConsentDialog } from './ConsentDialog'

/** What this tab does for the node, and the buttons to begin, pause and end it. */
export function ThisTab() {
  const { worker, hasConsent, isJoining, error } = useStore(computing)
  const [isAsking, setAsking] = useState(false)
  const isRunning = worker !== null && worker.ended === null
  return (
    <section aria-labelledby="this-tab" className="panel flex flex-col gap-4 p-4">
      <div className="flex flex-wrap items-center justify-between gap-2">
        <h2 id="this-tab" className="text-base font-semibold">
          This tab
        </h2>
        <span role="status">
          <StateChip state={stateOf(worker)} />
        </span>
      </div>
      {error && (
        <Failed title="This tab could not join" message={error.message} hint={error.hint} />
      )}
      {worker?.ended && worker.ended !== 'stopped' && (
        <Failed title="This tab computes no more" message={worker.ended} />
      )}
      {worker ? <Figures worker={worker} /> : <Introduction />}
      <div className="mt-auto flex flex-wrap gap-2">
        {isRunning ? (
          <RunningButtons />
        ) : (
          <button
            type="button"
            className="button button-primary"
            disabled={isJoining}
            onClick={() => (hasConsent ? void join() : setAsking(true))}
          >
            <Cpu size={14} aria-hidden /> {isJoining ? 'Joining' : 'Compute for this node'}
          </button>
        )}
      </div>
      {isAsking && <ConsentDialog onClose={() => setAsking(false)} />}
    </section>
  )
}

function Introduction() {
  return (
    <p className="text-ink-2">
      This tab can compute parts of jobs. It begins after you have read what that means, and ends
      when you leave or close it.
    </p>
  )
}

function RunningButtons() {
  const { isPausedByHand } = useStore(computing)
  return (
    <>
      <button type="button" className="button" onClick={() => pauseByHand(!isPausedByHand)}>
        {isPausedByHand ? <Play size={14} aria-hidden /> : <Pause size={14} aria-hidden />}
        {isPausedByHand ? 'Continue' : 'Pause'}
      </button>
      <button type="button" className="button" onClick={leave}>
        <LogOut size={14} aria-hidden /> Leave
      </button>
    </>
  )
}

function Figures({ worker }: { worker: WorkerState }) {
  const perSecond = worker.seconds > 0 ? Math.round(worker.rows / worker.seconds) : null
  const figures: [string, string][] = [
    ['Threads computing', `${worker.computing} of ${worker.threads}`],
    ['Tasks done', formatCount(worker.done)],
    ['Given back', formatCount(worker.failed)],
    ['Rows read', formatCount(worker.rows)],
    ['Speed of a thread', perSecond === null ? '–' : `${formatCount(perSecond)} rows/s`],
    ['Received', formatBytes(worker.bytesIn)],
    ['Sent', formatBytes(worker.bytesOut)],
  ]
  return (
    <>
      {worker.paused !== null && worker.ended === null && (
        <p className="text-warn font-semibold">Paused: {worker.paused}</p>
      )}
      <dl className="grid grid-cols-2 gap-x-4 gap-y-3 sm:grid-cols-3">
        {figures.map(([name, value]) => (
          <div key={name}>
            <dt className="text-ink-2 text-xs">{name}</dt>
            <dd className="text-base font-semibold">{value}</dd>
          </div>
        ))}
      </dl>
    </>
  )
}

/** One word for what the tab does. */
function stateOf(worker: WorkerState | null): string {
  if (!worker || worker.ended !== null) return 'not joined'
  if (!worker.connected) return 'connecting'
  if (worker.computing > 0) return 'computing'
  return worker.paused === null ? 'connected' : 'paused'
}
