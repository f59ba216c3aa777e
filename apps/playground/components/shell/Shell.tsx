'use client'

import { useRouter } from 'next/navigation'
import { useCallback, useEffect, useState, type ReactNode } from 'react'

import { signInNeeded } from '@/lib/api'
import { useLive, useStore } from '@/lib/hooks'
import { usePageKeys } from '@/lib/keyboard'
import { needsSignIn } from '@/lib/live'
import { openHistory } from '@/lib/sql/history'
import { openTheme } from '@/lib/theme'

import { Banners } from './Banners'
import { Header } from './Header'
import { KeyHelp } from './KeyHelp'
import { SignIn } from './SignIn'

/** What surrounds every page: header, banners, keys, and the question for a token. */
export function Shell({ children }: { children: ReactNode }) {
  const router = useRouter()
  const [helping, setHelping] = useState(false)
  const locked = useStore(signInNeeded)
  const { connection } = useLive('/jobs')

  useEffect(() => {
    openTheme()
    openHistory()
  }, [])

  useEffect(() => {
    if (needsSignIn(connection)) signInNeeded.set(true)
  }, [connection])

  usePageKeys(
    useCallback((href: string) => router.push(href), [router]),
    useCallback(() => setHelping(true), []),
  )

  return (
    <div className="flex min-h-dvh flex-col">
      <a
        href="#content"
        className="button button-primary fixed top-2 left-2 z-50 -translate-y-16 focus-visible:translate-y-0"
      >
        Skip to the content
      </a>
      <Header onHelp={() => setHelping(true)} />
      <Banners />
      <main id="content" tabIndex={-1} className="flex min-h-0 flex-1 flex-col outline-none">
        {locked ? <SignIn /> : children}
      </main>
      {helping && <KeyHelp onClose={() => setHelping(false)} />}
    </div>
  )
}
