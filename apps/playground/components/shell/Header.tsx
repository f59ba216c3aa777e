'use client'

import { CircleHelp } from 'lucide-react'
import Link from 'next/link'
import { usePathname } from 'next/navigation'
import { useEffect, useMemo, useRef } from 'react'

import { useLive } from '@/lib/hooks'
import { hasEnded, jobsOf } from '@/lib/jobs'
import { PAGES } from '@/lib/keyboard'

import { Connection } from './Connection'
import { ThemeChoice } from './ThemeChoice'

/** The line at the top of every page. */
export function Header({ onHelp }: { onHelp: () => void }) {
  const path = usePathname()
  const { value: tree } = useLive('/jobs')
  const pages = useRef<HTMLElement>(null)
  // On a phone there is no room for all names: the page's own is shown.
  useEffect(() => {
    pages.current?.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest' })
  }, [path])
  const running = useMemo(() => jobsOf(tree).filter((job) => !hasEnded(job)).length, [tree])

  return (
    <header className="border-line bg-surface sticky top-0 z-30 border-b">
      <div className="flex h-12 items-center gap-1 px-4 sm:px-6">
        <Link
          href="/"
          aria-label="Sennit, home"
          className="mr-1 flex shrink-0 items-center gap-2.5 rounded-md sm:mr-3"
        >
          {/* eslint-disable-next-line @next/next/no-img-element -- a vector needs no optimiser, and an export has none */}
          <img src="/icon.svg" alt="" width={24} height={24} />
          <span className="text-base font-semibold tracking-tight max-sm:sr-only">Sennit</span>
        </Link>
        <nav
          ref={pages}
          aria-label="Pages"
          className="flex h-full min-w-0 items-stretch overflow-x-auto"
        >
          {PAGES.map(({ href, label }) => {
            const here = path === href
            return (
              <Link
                key={href}
                href={href}
                aria-current={here ? 'page' : undefined}
                className={`relative flex items-center gap-1.5 px-1.5 font-medium whitespace-nowrap -outline-offset-4 sm:px-3 ${here ? 'text-ink' : 'text-ink-2 hover:text-ink'}`}
              >
                {label}
                {label === 'Jobs' && running > 0 && (
                  <span className="bg-accent text-accent-ink text-2xs min-w-4 rounded-full px-1 text-center font-semibold">
                    {running}
                    <span className="sr-only"> running</span>
                  </span>
                )}
                {here && (
                  <span
                    aria-hidden
                    className="bg-accent absolute inset-x-1.5 bottom-0 h-0.5 rounded-full"
                  />
                )}
              </Link>
            )
          })}
        </nav>
        <div className="ml-auto flex items-center gap-1.5">
          <Connection />
          <ThemeChoice />
          <button
            type="button"
            aria-label="Keyboard shortcuts"
            title="Keyboard shortcuts (?)"
            className="button button-quiet button-icon"
            onClick={onHelp}
          >
            <CircleHelp size={16} aria-hidden />
          </button>
        </div>
      </div>
    </header>
  )
}
