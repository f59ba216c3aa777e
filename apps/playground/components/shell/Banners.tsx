'use client'

import { ShieldAlert, Unplug } from 'lucide-react'

import { useInBrowser, useLive, useNow } from '@/lib/hooks'
import { isLost, live, needsSignIn } from '@/lib/live'

/** Things about the whole page that a person should know: no secure context, stale data. */
export function Banners() {
  return (
    <>
      <InsecureBanner />
      <StaleBanner />
    </>
  )
}

function InsecureBanner() {
  const inBrowser = useInBrowser()
  if (!inBrowser || (window.isSecureContext && window.crossOriginIsolated)) return null
  return (
    <div
      role="note"
      className="border-line bg-warn-soft flex items-start gap-2.5 border-b px-4 py-2 sm:px-6"
    >
      <ShieldAlert size={16} aria-hidden className="text-warn mt-0.5 shrink-0" />
      <p>
        <strong className="text-warn font-semibold">
          {window.isSecureContext ? 'This page is not isolated.' : 'This connection is not secure.'}
        </strong>{' '}
        Everything here works, but checksums are computed in slower code and this tab cannot share
        memory with workers. Open it as <code className="font-mono">localhost</code> or through
        HTTPS for full speed.
      </p>
    </div>
  )
}

function StaleBanner() {
  const { connection, isKnown } = useLive('/jobs')
  const now = useNow(isLost(connection) ? 500 : null)
  if (!isLost(connection) || !isKnown || needsSignIn(connection)) return null
  const seconds = Math.max(0, Math.ceil((connection.retryAtMs - now) / 1000))
  return (
    <div
      role="status"
      className="border-line bg-bad-soft flex flex-wrap items-center gap-x-2.5 gap-y-1 border-b px-4 py-2 sm:px-6"
    >
      <Unplug size={16} aria-hidden className="text-bad shrink-0" />
      <p className="flex-1">
        <strong className="text-bad font-semibold">The node cannot be reached.</strong> What you see
        is from before. {seconds > 0 ? `Trying again in ${seconds} s.` : 'Trying again…'}
      </p>
      <button type="button" className="button button-small" onClick={() => live.retry()}>
        Try now
      </button>
    </div>
  )
}
