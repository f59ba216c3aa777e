'use client'

import { Dialog } from '@/components/ui/Dialog'
import { allowFunctions } from '@/lib/compute'
import { useInBrowser } from '@/lib/hooks'

/** Says what functions of others are, before the first one runs. */
export function FunctionsDialog({ onClose }: { onClose: () => void }) {
  const host = useInBrowser() ? location.host : 'this node'
  return (
    <Dialog title="Run functions from others?" onClose={onClose} wide>
      <dl className="text-ink-2 flex flex-col gap-3 [&_dt]:text-ink [&_dt]:font-semibold">
        <div>
          <dt>What is run</dt>
          <dd>
            JavaScript functions that another person has written, called with the rows of a task.
            Without this, a tab runs no code of others, only filters and aggregates.
          </dd>
        </div>
        <div>
          <dt>From whom</dt>
          <dd>
            Admins of <strong>{host}</strong>, if the node allows such functions at all.
          </dd>
        </div>
        <div>
          <dt>What a function can reach</dt>
          <dd>
            Its rows, and nothing else: it runs in a frame with an origin of its own, without
            network, storage, cookies, and access to this page. That border is your browser’s: keep
            it up to date.
          </dd>
        </div>
        <div>
          <dt>What it costs you</dt>
          <dd>
            One task at a time. A function that takes more than 5 seconds for 16,384 rows, or
            returns more than 16 MiB for them, is ended. Until then it can use a core and memory.
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
            allowFunctions(true)
            onClose()
          }}
        >
          Run functions
        </button>
      </div>
    </Dialog>
  )
}
