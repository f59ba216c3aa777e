'use client'

import { useMemo, useState, type FormEvent } from 'react'

import { useDatasets } from '@/components/data/useDatasets'
import { Dialog } from '@/components/ui/Dialog'
import { Failed } from '@/components/ui/States'
import { useAction } from '@/lib/hooks'
import type { NetworkReport } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'
import { COPIES_MAX, requestOf, sharingOf, type SharedDataset, type Sharing } from '@/lib/sharing'

import { NodeChoice } from './NodeChoice'

/** Shares a table of this node, or changes how one is shared. */
export function ShareDialog({
  report,
  dataset,
  shared,
  onClose,
  onDone,
}: {
  report: NetworkReport
  /** Null to choose one that is private. */
  dataset: SharedDataset | null
  shared: readonly SharedDataset[]
  onClose: () => void
  onDone: () => void
}) {
  const { datasets } = useDatasets()
  const options = useMemo(() => {
    const taken = new Set(shared.map((each) => each.dataset))
    return datasets
      .filter((each) => !each.node && !each.damaged && !taken.has(each.id))
      .sort((a, b) => a.name.localeCompare(b.name))
  }, [datasets, shared])
  const [picked, setPicked] = useState('')
  const [sharing, setSharing] = useState<Sharing>(() => sharingOf(dataset))
  const { busy, error, run } = useAction()
  const id = dataset?.dataset ?? (picked || options[0]?.id)
  const isReady = id !== undefined && (sharing.withAll || sharing.nodes.length > 0)
  const share = (event: FormEvent) => {
    event.preventDefault()
    if (id === undefined) return
    run(
      () => networkApi.share(id, requestOf(sharing)),
      () => {
        onClose()
        onDone()
      },
    )
  }
  return (
    <Dialog title={dataset ? `How ${dataset.name} is shared` : 'Share a table'} onClose={onClose}>
      <form onSubmit={share} className="flex flex-col gap-4">
        {!dataset && options.length === 0 && (
          <p className="text-ink-2">All tables of this node are shared already, or it has none.</p>
        )}
        {!dataset && options.length > 0 && (
          <label className="flex flex-col gap-1">
            <span className="text-ink-2 text-xs">Table</span>
            <select
              className="field"
              value={id}
              onChange={(event) => setPicked(event.target.value)}
            >
              {options.map((each) => (
                <option key={each.id} value={each.id}>
                  {each.name}
                </option>
              ))}
            </select>
          </label>
        )}
        {(dataset || options.length > 0) && (
          <>
            <Fields report={report} sharing={sharing} onChange={setSharing} />
            <p className="text-ink-2 text-xs">
              Its newest eight versions are shared: so also rows that were deleted just before, and
              the statements and authors of these versions. If the table has an access policy or is
              encrypted, other nodes get only what their users may see.
            </p>
          </>
        )}
        {error && <Failed title="It was not shared" message={error.message} hint={error.hint} />}
        <div className="flex justify-end gap-2">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button button-primary" disabled={busy || !isReady}>
            {busy ? 'Sharing…' : dataset ? 'Save' : 'Share'}
          </button>
        </div>
      </form>
    </Dialog>
  )
}

function Fields({
  report,
  sharing,
  onChange,
}: {
  report: NetworkReport
  sharing: Sharing
  onChange: (sharing: Sharing) => void
}) {
  const all = report.nodes.filter(({ state }) => state !== 'left').map(({ name }) => name)
  const others = all.slice(1)
  const set = (change: Partial<Sharing>) => onChange({ ...sharing, ...change })
  return (
    <>
      <fieldset className="flex flex-col gap-1.5">
        <legend className="text-ink-2 mb-1 text-xs">With</legend>
        <label className="flex items-center gap-2">
          <input
            type="radio"
            name="with"
            className="accent-accent"
            checked={sharing.withAll}
            onChange={() => set({ withAll: true })}
          />
          All nodes, those that join later too; they only read it
        </label>
        <label className="flex items-center gap-2">
          <input
            type="radio"
            name="with"
            className="accent-accent"
            checked={!sharing.withAll}
            onChange={() => set({ withAll: false })}
          />
          Some nodes
        </label>
      </fieldset>
      {!sharing.withAll && (
        <>
          <NodeChoice
            label="Nodes"
            nodes={others}
            chosen={sharing.nodes}
            onChange={(nodes) => set({ nodes })}
          />
          <label className="flex items-center gap-2">
            <input
              type="checkbox"
              className="accent-accent"
              checked={sharing.mayChange}
              onChange={(event) => set({ mayChange: event.target.checked })}
            />
            Their users may change its rows
          </label>
        </>
      )}
      <label className="flex flex-col gap-1">
        <span className="text-ink-2 text-xs">Nodes that hold each shard, this one too</span>
        <input
          type="number"
          className="field w-24"
          min={1}
          max={COPIES_MAX}
          required
          value={Number.isNaN(sharing.copies) ? '' : sharing.copies}
          onChange={(event) => set({ copies: event.target.valueAsNumber })}
        />
      </label>
      <details open={sharing.pins.length + sharing.only.length > 0}>
        <summary className="text-ink-2 cursor-pointer text-xs">Where copies are</summary>
        <div className="mt-2 grid gap-3 sm:grid-cols-2">
          <NodeChoice
            label="These hold every shard"
            nodes={others}
            chosen={sharing.pins}
            onChange={(pins) => set({ pins })}
          />
          <NodeChoice
            label="Only these hold copies; none chosen: any"
            nodes={all}
            chosen={sharing.only}
            onChange={(only) => set({ only })}
          />
        </div>
      </details>
    </>
  )
}
