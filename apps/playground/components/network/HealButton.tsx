'use client'

import { Wrench } from 'lucide-react'
import { useEffect, useRef, useState } from 'react'

import { Progress } from '@/components/ui/Bar'
import { Dialog } from '@/components/ui/Dialog'
import { Failed } from '@/components/ui/States'
import { useAction } from '@/lib/hooks'
import { healed, type HealReport } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'

import { FindingList } from './CheckPanel'

/** Repairs the copies of a table, or of all, and shows how far it is. */
export function HealButton({ dataset, label }: { dataset: string | null; label: string }) {
  const [isOpen, setOpen] = useState(false)
  return (
    <>
      <button type="button" className="button button-small" onClick={() => setOpen(true)}>
        <Wrench size={13} aria-hidden /> {label}
      </button>
      {isOpen && <HealDialog dataset={dataset} onClose={() => setOpen(false)} />}
    </>
  )
}

function HealDialog({ dataset, onClose }: { dataset: string | null; onClose: () => void }) {
  const [report, setReport] = useState<HealReport | null>(null)
  const { busy, error, run } = useAction()
  const healing = useRef<AbortController | null>(null)
  useEffect(() => () => healing.current?.abort(), [])
  const heal = () => {
    const control = new AbortController()
    healing.current = control
    setReport(null)
    run(() => networkApi.heal(dataset, setReport, control.signal))
  }
  return (
    <Dialog title="Repair copies" onClose={onClose} wide>
      <p className="text-ink-2">
        This node reads its copies and compares them with their hashes; all nodes fetch what they
        lack. Nodes that are dead count as lost at once, and not after ten minutes.
      </p>
      {(busy || report) && (
        <div role="status" className="mt-4 flex flex-col gap-1.5">
          {busy && <Progress label="Repairing" fraction={null} />}
          <p>{report ? healed(report) : 'Reading the copies of this node…'}</p>
        </div>
      )}
      {report?.done && report.problems.length > 0 && <FindingList findings={report.problems} />}
      {error && (
        <div className="mt-3">
          <Failed title="The repair has failed" message={error.message} hint={error.hint} />
        </div>
      )}
      <div className="mt-5 flex justify-end gap-2">
        <button type="button" className="button" onClick={onClose}>
          {busy ? 'Stop' : 'Close'}
        </button>
        {!busy && (
          <button type="button" className="button button-primary" onClick={heal}>
            {report || error ? 'Repair again' : 'Repair now'}
          </button>
        )}
      </div>
    </Dialog>
  )
}
