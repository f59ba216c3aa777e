'use client'

import { ChevronRight } from 'lucide-react'
import { useState } from 'react'

import { Meter } from '@/components/ui/Bar'
import { SearchField } from '@/components/ui/SearchField'
import { StateChip } from '@/components/ui/StateChip'
import { formatAgo, formatBytes, formatRate } from '@/lib/format'
import {
  byTrouble,
  matches,
  roundTrip,
  textsOf,
  wayOf,
  type NetworkNode,
  type NetworkReport,
  type Rate,
} from '@/lib/network'

import { NodeDetails } from './NodeDetails'
import { RevokeDialog } from './RevokeDialog'
import { SectionTitle } from './SectionTitle'

/** Fewer are seen at a glance. */
const SEARCHED_MIN = 8
const COLUMNS = 9

/** Every node with its state and how it is reached; a row opens to all that is known of it. */
export function NodeTable({
  report,
  rates,
  onChange,
}: {
  report: NetworkReport
  rates: ReadonlyMap<string, Rate>
  onChange: () => void
}) {
  const [search, setSearch] = useState('')
  const [opened, setOpened] = useState<ReadonlySet<string>>(new Set())
  const [doomed, setDoomed] = useState<NetworkNode | null>(null)
  const own = report.nodes[0]
  const shown = byTrouble(report.nodes).filter((node) => matches(textsOf(node), search))
  const mayRevoke = report.mayManage && !report.revoked && own?.admin === true
  const toggle = (id: string) => {
    const next = new Set(opened)
    if (!next.delete(id)) next.add(id)
    setOpened(next)
  }
  return (
    <section aria-labelledby="nodes" className="min-w-0">
      <SectionTitle id="nodes" title="Nodes">
        {report.nodes.length >= SEARCHED_MIN && (
          <>
            <span role="status" className="text-ink-3 text-xs">
              {search.trim() !== '' && `${shown.length} of ${report.nodes.length}`}
            </span>
            <SearchField label="Search nodes" value={search} onChange={setSearch} />
          </>
        )}
      </SectionTitle>
      <div className="panel panel-long" role="group" aria-label="Nodes" tabIndex={0}>
        <table className="table">
          <thead>
            <tr>
              <th scope="col">Node</th>
              <th scope="col">State</th>
              <th scope="col">Connection</th>
              <th scope="col" className="number">
                Round trip
              </th>
              <th scope="col">Last seen</th>
              <th scope="col">Zone</th>
              <th scope="col">Version</th>
              <th scope="col">Room for copies</th>
              <th scope="col" className="number">
                In · out
              </th>
            </tr>
          </thead>
          <tbody>
            {shown.map((node) => (
              <NodeRows
                key={node.id}
                node={node}
                isOwn={node.id === report.node.id}
                time={report.time}
                rate={rates.get(node.id) ?? null}
                isOpen={opened.has(node.id)}
                onToggle={() => toggle(node.id)}
                onRevoke={mayRevoke && node.id !== report.node.id ? () => setDoomed(node) : null}
              />
            ))}
            {shown.length === 0 && (
              <tr>
                <td colSpan={COLUMNS} className="text-ink-2">
                  No node matches the search.
                </td>
              </tr>
            )}
          </tbody>
        </table>
      </div>
      {doomed && <RevokeDialog node={doomed} onClose={() => setDoomed(null)} onDone={onChange} />}
    </section>
  )
}

function NodeRows({
  node,
  isOwn,
  time,
  rate,
  isOpen,
  onToggle,
  onRevoke,
}: {
  node: NetworkNode
  isOwn: boolean
  time: number
  rate: Rate | null
  isOpen: boolean
  onToggle: () => void
  onRevoke: (() => void) | null
}) {
  const roles = [isOwn && 'this node', node.admin && 'admin'].filter(Boolean).join(', ')
  const seen = node.heardAt === null ? '–' : formatAgo(node.heardAt * 1000, time * 1000)
  return (
    <>
      <tr className="hover:bg-hover">
        <th scope="row" className="!py-1">
          <button
            type="button"
            className="flex min-w-32 items-center gap-1.5 rounded-sm py-1 text-left whitespace-nowrap"
            aria-expanded={isOpen}
            onClick={onToggle}
          >
            <ChevronRight
              size={14}
              aria-hidden
              className={`text-ink-3 shrink-0 transition-transform ${isOpen ? 'rotate-90' : ''}`}
            />
            <span className="max-w-48 overflow-hidden text-ellipsis" title={node.name}>
              <span className="font-semibold">{node.name}</span>
            </span>
            {roles && <span className="text-ink-3 text-xs">{roles}</span>}
          </button>
        </th>
        <td>
          <StateChip state={node.state} />
        </td>
        <td className="whitespace-nowrap">
          {isOwn ? (
            <span className="text-ink-3">–</span>
          ) : (
            <span className={node.connection === null ? 'text-ink-3' : 'text-ink-2'}>
              {wayOf(node)}
            </span>
          )}
          {node.cannot.length > 0 && (
            <span className="text-warn block text-xs">
              not all is possible together: {node.cannot.join(', ')}
            </span>
          )}
        </td>
        <td className="number">{roundTrip(node.rttSeconds) ?? '–'}</td>
        <td className="text-ink-2 whitespace-nowrap">{isOwn ? '–' : seen}</td>
        <td className="text-ink-2 whitespace-nowrap">{node.zone ?? '–'}</td>
        <td className="text-ink-2 whitespace-nowrap">{node.version ?? '–'}</td>
        <td className="min-w-40">
          <Room node={node} />
        </td>
        <td className="number text-ink-2">
          {rate ? `${formatRate(rate.received)} · ${formatRate(rate.sent)}` : '–'}
        </td>
      </tr>
      {isOpen && (
        <tr>
          <td colSpan={COLUMNS} className="bg-sunken">
            <NodeDetails node={node} onRevoke={onRevoke} />
          </td>
        </tr>
      )}
    </>
  )
}

function Room({ node }: { node: NetworkNode }) {
  const { usedBytes: used, capacityBytes: capacity } = node
  if (used === null || capacity === null) return <span className="text-ink-3">–</span>
  if (capacity === 0) return <span className="text-ink-3">offers none</span>
  const text = `${formatBytes(Math.max(0, capacity - used))} free of ${formatBytes(capacity)}`
  return (
    <>
      <span className="text-ink-2 text-xs whitespace-nowrap">{text}</span>
      <Meter value={used} max={capacity} label={`Copies on ${node.name}`} text={text} />
    </>
  )
}
