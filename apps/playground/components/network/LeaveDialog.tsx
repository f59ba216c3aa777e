'use client'

import { useEffect, useRef, useState } from 'react'

import { Progress } from '@/components/ui/Bar'
import { Dialog } from '@/components/ui/Dialog'
import { Failed, Loading } from '@/components/ui/States'
import { useAction, useResource } from '@/lib/hooks'
import { handedOver, listed, type LeaveConsequences, type LeaveReport } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'

/** As `platform net leave` waits. */
const WAIT_SECONDS = 600

/** Says what leaving the network means, and leaves, with the progress of what is handed over. */
export function LeaveDialog({ isRevoked, onClose }: { isRevoked: boolean; onClose: () => void }) {
  const found = useResource('leave', networkApi.consequencesOfLeaving)
  const [report, setReport] = useState<LeaveReport | null>(null)
  const { busy, error, run } = useAction()
  const leaving = useRef<AbortController | null>(null)
  // Ending the request ends the handing over: the node stays.
  useEffect(() => () => leaving.current?.abort(), [])
  const leave = (seconds: number) => {
    const control = new AbortController()
    leaving.current = control
    setReport(null)
    run(async () => {
      const last = await networkApi.leave(seconds, setReport, control.signal)
      if (last.left) onClose()
    })
  }
  return (
    <Dialog title="Leave the network?" onClose={onClose}>
      {found.state === 'loading' && <Loading rows={3} label="Loading what leaving means" />}
      {found.state === 'failed' && (
        <Failed
          title="The node did not say what leaving means"
          message={found.error.message}
          hint={found.error.hint}
          onRetry={found.reload}
        />
      )}
      {found.state === 'ready' && <Consequences found={found.data} isRevoked={isRevoked} />}
      {report && (
        <div className="mt-4 flex flex-col gap-1.5" role="status">
          {busy && (
            <Progress
              label="Handing over"
              fraction={report.objects > 0 ? 1 - report.waiting / report.objects : null}
            />
          )}
          <p>{handedOver(report)}</p>
        </div>
      )}
      {report?.done && !report.left && (
        <p className="text-warn mt-2">
          This node stays: no other node may hold these shards, or has room for them. The check on
          this page says more. Leaving now loses them to the others.
        </p>
      )}
      {error && (
        <div className="mt-3">
          <Failed title="This node did not leave" message={error.message} hint={error.hint} />
        </div>
      )}
      <div className="mt-5 flex flex-wrap justify-end gap-2">
        <button type="button" className="button" onClick={onClose}>
          {busy ? 'Stop and stay' : 'Stay'}
        </button>
        {found.state === 'ready' && !busy && (
          <>
            {!isRevoked && (
              <button type="button" className="button button-danger" onClick={() => leave(0)}>
                Leave at once
              </button>
            )}
            <button
              type="button"
              className="button button-danger"
              onClick={() => leave(isRevoked ? 0 : WAIT_SECONDS)}
            >
              {isRevoked ? 'Leave' : 'Hand over and leave'}
            </button>
          </>
        )}
      </div>
    </Dialog>
  )
}

function Consequences({ found, isRevoked }: { found: LeaveConsequences; isRevoked: boolean }) {
  return (
    <div className="text-ink-2 flex flex-col gap-2">
      {found.writes.length > 0 && (
        <p>
          Other nodes get no new versions of{' '}
          <strong className="text-ink font-semibold">{listed(found.writes)}</strong>, which become
          private here.
        </p>
      )}
      {found.reads.length > 0 && (
        <p>
          This node can read no longer:{' '}
          <strong className="text-ink font-semibold">{listed(found.reads)}</strong>.
        </p>
      )}
      {!isRevoked && (
        <p>
          First it hands over the shards that others need of it; keep this page open meanwhile.
          Leaving at once does not wait: shards that only this node holds are lost to the others.
        </p>
      )}
      <p>
        Its own tables stay. It may come back with an invite{isRevoked && ', under another key'}.
      </p>
    </div>
  )
}
