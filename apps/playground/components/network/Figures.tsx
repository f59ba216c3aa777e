import type { ReactNode } from 'react'

import { Meter } from '@/components/ui/Bar'
import { formatBytes, formatCount, formatRate } from '@/lib/format'
import { roomOf, totalOf, type NetworkReport, type Rate } from '@/lib/network'
import { copySummary, type CopyTone, type SharedDataset } from '@/lib/sharing'

const TONES: Record<CopyTone, string> = {
  good: 'text-good',
  warn: 'text-warn',
  bad: 'text-bad',
  unknown: 'text-ink-3',
}

/** The state of the network in four numbers. */
export function Figures({
  report,
  rates,
  datasets,
}: {
  report: NetworkReport
  rates: ReadonlyMap<string, Rate>
  /** Null while they are not known. */
  datasets: readonly SharedDataset[] | null
}) {
  const alive = report.nodes.filter(({ state }) => state === 'alive').length
  const dead = report.nodes.filter(({ state }) => state === 'dead').length
  const room = roomOf(report.nodes)
  const roomText = `${formatBytes(room.used)} of ${formatBytes(room.capacity)} used`
  const total = totalOf(rates)
  const copies = datasets && copySummary(datasets)
  return (
    <dl className="grid grid-cols-2 gap-3 lg:grid-cols-4">
      <Figure
        name="Nodes"
        value={`${formatCount(alive)} of ${formatCount(report.nodes.length)} alive`}
        note={
          dead > 0 ? (
            <span className="text-bad">{formatCount(dead)} dead</span>
          ) : (
            `${formatCount(report.waiting.length)} waiting to join`
          )
        }
      />
      <Figure
        name="Shared tables"
        value={datasets ? formatCount(datasets.length) : '–'}
        note={copies && <span className={TONES[copies.tone]}>{copies.text}</span>}
      />
      <Figure
        name="Room for copies"
        value={`${formatBytes(Math.max(0, room.capacity - room.used))} free`}
        note={
          <>
            {roomText}
            <Meter value={room.used} max={room.capacity} label="Room for copies" text={roomText} />
          </>
        }
      />
      <Figure
        name="Transfer"
        value={`${formatRate(total?.received ?? null)} in`}
        note={`${formatRate(total?.sent ?? null)} out`}
      />
    </dl>
  )
}

function Figure({ name, value, note }: { name: string; value: string; note: ReactNode }) {
  return (
    <div className="panel px-4 py-3">
      <dt className="text-ink-3 text-xs">{name}</dt>
      <dd className="mt-0.5 text-base font-semibold">{value}</dd>
      <dd className="text-ink-2 min-h-5 text-xs">{note}</dd>
    </div>
  )
}
