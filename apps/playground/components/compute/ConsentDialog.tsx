'use client'

import { Dialog } from '@/components/ui/Dialog'
import { consent, join } from '@/lib/compute'
import { useInBrowser } from '@/lib/hooks'

/** Says what a tab that computes does, before its first task. */
export function ConsentDialog({ onClose }: { onClose: () => void }) {
  const host = useInBrowser() ? location.host : 'this node'
  return (
    <Dialog title="Let this tab compute?" onClose={onClose} wide>
      <dl className="text-ink-2 flex flex-col gap-3 [&_dt]:text-ink [&_dt]:font-semibold">
        <div>
          <dt>What is run</dt>
          <dd>
            Filters, computed columns and aggregates over parts of tables. The node sends a
            description of them, never code; loops are generated from it here, in a worker that can
            reach neither the network nor this page.
          </dd>
        </div>
        <div>
          <dt>From whom</dt>
          <dd>
            Jobs with the engine <code>browser</code> of the users of <strong>{host}</strong>. Other
            nodes and pages cannot send any.
          </dd>
        </div>
        <div>
          <dt>What leaves this computer</dt>
          <dd>
            The rows that a task results in, how far it is, and its error if it fails. Nothing of
            your files, of other tabs or of your session: this tab gets a token of its own, which is
            good for tasks alone and expires after 12 hours.
          </dd>
        </div>
        <div>
          <dt>What it costs you</dt>
          <dd>
            Processor time of all cores but one, energy and data, within the limits on this page.
            The columns that a task reads are held in this tab, and kept by this browser for later
            tasks until you choose not to.
          </dd>
        </div>
      </dl>
      <div className="mt-5 flex justify-end gap-2">
        <button type="button" className="button" onClick={onClose}>
          Not now
        </button>
        <button
          type="button"
          className="button button-primary"
          onClick={() => {
            consent()
            onClose()
            void join()
          }}
        >
          Compute
        </button>
      </div>
    </Dialog>
  )
}
