import Link from 'next/link'

import { formatCount } from '@/lib/format'
import type { NetworkReport } from '@/lib/network'
import {
  accessOf,
  copyHealth,
  handOverActions,
  handOverOf,
  heldHere,
  lackersOf,
  readersOf,
  shortageOf,
  writerOf,
  type CopyTone,
  type SharedDataset,
} from '@/lib/sharing'

import { HealButton } from './HealButton'

/** What a row opens. */
export type RowDialog = 'share' | 'unshare' | 'fork' | 'offer' | 'accept' | 'undo'

const TONES: Record<CopyTone, string> = {
  good: 'text-good',
  warn: 'text-warn',
  bad: 'text-bad',
  unknown: 'text-ink-3',
}

/** A shared table: who writes it, who reads it, its copies, and what can be done with it. */
export function SharedRow({
  dataset,
  report,
  onOpen,
}: {
  dataset: SharedDataset
  report: NetworkReport
  onOpen: (dialog: RowDialog) => void
}) {
  const health = copyHealth(dataset)
  const lackers = lackersOf(dataset)
  const shortage = shortageOf(dataset)
  const moving = handOverOf(dataset)
  const actions = handOverActions(dataset, report.mayManage)
  const isRepaired = shortage === null && (health.tone !== 'good' || lackers.length > 0)
  return (
    <tr className="hover:bg-hover">
      <th scope="row">
        <Link
          href={`/data/?id=${dataset.dataset}`}
          className="font-semibold underline-offset-3 hover:underline"
        >
          {dataset.name}
        </Link>
        {(dataset.restricted || dataset.encrypted) && (
          <span className="text-ink-3 block text-xs">
            {[dataset.encrypted && 'encrypted', dataset.restricted && 'restricted']
              .filter(Boolean)
              .join(', ')}
          </span>
        )}
        {dataset.forkOf && (
          <span className="text-ink-3 block text-xs font-normal">
            fork of {dataset.forkOf.name}, version {formatCount(dataset.forkOf.version)}
          </span>
        )}
      </th>
      <td className="text-ink-2 min-w-28">
        {writerOf(dataset)}
        {dataset.writerRevoked && (
          <span className="text-warn block text-xs">removed from the network: no new versions</span>
        )}
        {moving && <span className="text-warn block text-xs break-words">{moving}</span>}
      </td>
      <td className="min-w-36">
        {readersOf(dataset)}
        <span className="text-ink-3 block text-xs">{accessOf(dataset)}</span>
      </td>
      <td className="min-w-40">
        <span className={TONES[health.tone]}>{health.text}</span>
        {lackers.length > 0 && (
          <span className="text-ink-2 block text-xs">{lackers.join(', ')}</span>
        )}
        {shortage && <span className="text-ink-2 block text-xs">{shortage}</span>}
        {dataset.pins.length + dataset.only.length > 0 && (
          <span className="text-ink-3 block text-xs">
            {[
              dataset.pins.length > 0 && `all on ${dataset.pins.join(', ')}`,
              dataset.only.length > 0 && `only on ${dataset.only.join(', ')}`,
            ]
              .filter(Boolean)
              .join('; ')}
          </span>
        )}
      </td>
      <td className="text-ink-2 whitespace-nowrap">{heldHere(dataset)}</td>
      <td className="w-0">
        <div className="flex flex-wrap justify-end gap-1">
          {isRepaired && health.tone !== 'unknown' && report.mayManage && (
            <HealButton dataset={dataset.dataset} label="Repair" />
          )}
          {dataset.mayShare && (
            <>
              <button
                type="button"
                className="button button-quiet button-small"
                onClick={() => onOpen('share')}
              >
                Change…<span className="sr-only"> how {dataset.name} is shared</span>
              </button>
              <button
                type="button"
                className="button button-quiet button-small"
                onClick={() => onOpen('unshare')}
              >
                Make private…<span className="sr-only"> {dataset.name}</span>
              </button>
            </>
          )}
          {report.mayWrite && !dataset.restricted && !dataset.encrypted && (
            <button
              type="button"
              className="button button-quiet button-small"
              onClick={() => onOpen('fork')}
            >
              Fork…<span className="sr-only"> {dataset.name}</span>
            </button>
          )}
          {actions.offer && (
            <button
              type="button"
              className="button button-quiet button-small"
              onClick={() => onOpen('offer')}
            >
              Hand over…<span className="sr-only"> {dataset.name}</span>
            </button>
          )}
          {actions.accept && (
            <button
              type="button"
              className="button button-quiet button-small"
              onClick={() => onOpen('accept')}
            >
              Write here…<span className="sr-only"> {dataset.name}</span>
            </button>
          )}
          {actions.undo && (
            <button
              type="button"
              className="button button-quiet button-small"
              onClick={() => onOpen('undo')}
            >
              End hand-over…<span className="sr-only"> of {dataset.name}</span>
            </button>
          )}
        </div>
      </td>
    </tr>
  )
}
