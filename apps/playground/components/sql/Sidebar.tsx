'use client'

import { ChevronRight, Clock, Table2, Trash2 } from 'lucide-react'
import Link from 'next/link'
import { useState } from 'react'

import { Empty, Loading } from '@/components/ui/States'
import { fieldsOf } from '@/lib/datasets'
import { formatAgo, formatCount, formatElapsed, plural } from '@/lib/format'
import { useNow, useStore } from '@/lib/hooks'
import type { DatasetInfo } from '@/lib/records'
import { clearHistory, history } from '@/lib/sql/history'
import { quoteName } from '@/lib/sql/names'

interface SidebarProps {
  datasets: DatasetInfo[]
  ready: boolean
  onUse: (sql: string, run: boolean) => void
  onInsert: (name: string) => void
}

/** What can be asked, and what was asked. */
export function Sidebar(props: SidebarProps) {
  const [tab, setTab] = useState<'tables' | 'history'>('tables')
  const tabs = [
    { id: 'tables', label: 'Tables', Icon: Table2 },
    { id: 'history', label: 'History', Icon: Clock },
  ] as const
  return (
    <aside
      aria-label="Tables and history"
      className="border-line flex min-h-0 shrink-0 flex-col max-md:max-h-56 max-md:border-b md:w-64 md:border-r"
    >
      <div role="tablist" aria-label="Sidebar" className="border-line flex border-b px-2">
        {tabs.map(({ id, label, Icon }) => (
          <button
            key={id}
            type="button"
            role="tab"
            id={`tab-${id}`}
            aria-selected={tab === id}
            aria-controls="sidebar-panel"
            onClick={() => setTab(id)}
            className={`relative flex h-9 items-center gap-1.5 px-2.5 font-medium -outline-offset-4 ${tab === id ? 'text-ink' : 'text-ink-2 hover:text-ink'}`}
          >
            <Icon size={14} aria-hidden />
            {label}
            {tab === id && (
              <span
                aria-hidden
                className="bg-accent absolute inset-x-2 -bottom-px h-0.5 rounded-full"
              />
            )}
          </button>
        ))}
      </div>
      <div
        role="tabpanel"
        id="sidebar-panel"
        tabIndex={0}
        aria-labelledby={`tab-${tab}`}
        className="min-h-0 flex-1 overflow-auto py-1.5 -outline-offset-2"
      >
        {tab === 'tables' ? <Tables {...props} /> : <History onUse={props.onUse} />}
      </div>
    </aside>
  )
}

function Tables({ datasets, ready, onUse, onInsert }: SidebarProps) {
  const [open, setOpen] = useState<string | null>(null)
  if (!ready) return <Loading label="Loading the tables" />
  if (datasets.length === 0) {
    return (
      <Empty title="No tables yet">
        <Link href="/data/" className="link">
          Upload a file
        </Link>{' '}
        and it becomes one.
      </Empty>
    )
  }
  const shown = open ?? (datasets.length === 1 ? datasets[0]!.id : null)
  return (
    <ul>
      {datasets
        .toSorted((a, b) => a.name.localeCompare(b.name))
        .map((dataset) => {
          const expanded = shown === dataset.id
          return (
            <li key={dataset.id}>
              <div className="group hover:bg-hover flex items-center pr-2">
                <button
                  type="button"
                  aria-expanded={expanded}
                  onClick={() => setOpen(expanded ? '' : dataset.id)}
                  className="flex min-w-0 flex-1 items-center gap-1 py-1 pl-2 text-left -outline-offset-2"
                >
                  <ChevronRight
                    size={14}
                    aria-hidden
                    className={`text-ink-3 shrink-0 transition-transform ${expanded ? 'rotate-90' : ''}`}
                  />
                  <span className="truncate font-medium">{dataset.name}</span>
                  {dataset.damaged ? (
                    <span className="text-bad ml-auto pl-2 text-xs font-semibold">damaged</span>
                  ) : (
                    <span className="text-ink-3 ml-auto pl-2 text-xs">
                      {formatCount(dataset.rows)}
                    </span>
                  )}
                </button>
              </div>
              {expanded && dataset.damaged && (
                <p className="text-ink-2 pr-3 pb-2 pl-7 text-xs break-words">
                  {dataset.damaged}{' '}
                  <Link href={`/data/?id=${dataset.id}`} className="link">
                    What to do
                  </Link>
                </p>
              )}
              {expanded && !dataset.damaged && (
                <div className="pb-2">
                  <button
                    type="button"
                    className="link mb-1 ml-7 text-xs"
                    onClick={() =>
                      onUse(`select *\nfrom ${quoteName(dataset.name)}\nlimit 100`, true)
                    }
                  >
                    Show the first 100 rows
                  </button>
                  <ul>
                    {fieldsOf(dataset).map(({ name, type }) => (
                      <li key={name}>
                        <button
                          type="button"
                          title={`Insert ${name}`}
                          onClick={() => onInsert(quoteName(name))}
                          className="hover:bg-hover flex w-full items-baseline justify-between gap-3 py-0.5 pr-3 pl-7 text-left font-mono text-xs -outline-offset-2"
                        >
                          <span className="truncate">{name}</span>
                          <span className="text-2xs text-ink-3 shrink-0">{type}</span>
                        </button>
                      </li>
                    ))}
                  </ul>
                </div>
              )}
            </li>
          )
        })}
    </ul>
  )
}

function History({ onUse }: Pick<SidebarProps, 'onUse'>) {
  const entries = useStore(history)
  const now = useNow(30_000)
  if (entries === null) return <Loading label="Loading the history" />
  if (entries.length === 0)
    return <Empty title="Nothing asked yet">Queries you run in this browser are kept here.</Empty>
  return (
    <>
      <ul>
        {entries.map((entry) => (
          <li key={entry.id}>
            <button
              type="button"
              onClick={() => onUse(entry.sql, false)}
              title={entry.error ?? entry.sql}
              className="hover:bg-hover w-full px-3 py-1.5 text-left -outline-offset-2"
            >
              <span className="line-clamp-2 font-mono text-xs break-words">{entry.sql}</span>
              <span className="text-2xs text-ink-3 mt-0.5 flex gap-2">
                <span>{formatAgo(entry.atMs, now)}</span>
                <span>{formatElapsed(entry.elapsedMs / 1000)}</span>
                {entry.outcome === 'done' ? (
                  <span>
                    {plural(entry.rows ?? 0, 'row')}
                    {entry.truncated ? '+' : ''}
                  </span>
                ) : (
                  <span className={entry.outcome === 'failed' ? 'text-bad' : 'text-warn'}>
                    {entry.outcome}
                  </span>
                )}
              </span>
            </button>
          </li>
        ))}
      </ul>
      <button
        type="button"
        className="button button-quiet button-small mx-2 mt-2"
        onClick={clearHistory}
      >
        <Trash2 size={13} aria-hidden /> Clear the history
      </button>
    </>
  )
}
