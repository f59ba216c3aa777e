'use client'

import { Play, Square } from 'lucide-react'
import dynamic from 'next/dynamic'
import { useSearchParams } from 'next/navigation'
import { useCallback, useMemo, useRef, useState } from 'react'

import { useDatasets } from '@/components/data/useDatasets'
import { ENGINES, type Engine } from '@/lib/api'
import { fieldsOf } from '@/lib/datasets'
import { modName } from '@/lib/keyboard'
import { quoteName } from '@/lib/sql/names'
import type { Range } from '@/lib/sql/position'
import { statementAt } from '@/lib/sql/statements'

import type { EditorSchema } from './Editor'
import { readDraft, writeDraft } from './draft'
import { ResultPane } from './ResultPane'
import { Sidebar } from './Sidebar'
import { SplitHandle } from './SplitHandle'
import { useQuery } from './useQuery'

const Editor = dynamic(() => import('./Editor'), {
  ssr: false,
  loading: () => <div className="skeleton m-4 h-4 w-56" />,
})

/** The SQL page: tables and history, the editor, the answer. */
export function Workbench() {
  const asked = useSearchParams().get('q')
  const [text, setText] = useState(() => asked ?? readDraft())
  const [editorPx, setEditorPx] = useState(220)
  const [engine, setEngine] = useState<Engine>('auto')
  const selection = useRef<{ range: Range; head: number } | null>(null)
  const query = useQuery()
  const { datasets, ready } = useDatasets()
  const schema = useMemo<EditorSchema>(
    () =>
      Object.fromEntries(
        datasets.map((dataset) => [
          quoteName(dataset.name),
          fieldsOf(dataset).map(({ name, type }) => ({
            label: quoteName(name),
            detail: type,
            type: 'property',
          })),
        ]),
      ),
    [datasets],
  )

  const edit = useCallback((next: string) => {
    setText(next)
    writeDraft(next)
  }, [])

  const run = (selection: Range, head: number) => {
    const chosen = text.slice(selection.from, selection.to)
    const statement = chosen.trim()
      ? { text: chosen, from: selection.from }
      : statementAt(text, head)
    if (statement) void query.run(statement.text, statement.from, engine)
  }

  const note = (range: Range, head: number) => {
    selection.current = { range, head }
  }

  const use = (sql: string, andRun: boolean) => {
    edit(sql)
    if (andRun) void query.run(sql, 0, engine)
  }

  const running = query.state.phase === 'running'
  return (
    <div className="flex min-h-0 flex-1 max-md:flex-col md:h-[calc(100dvh-3rem)] md:flex-none">
      <h1 className="sr-only">SQL</h1>
      <Sidebar
        datasets={datasets}
        ready={ready}
        onUse={use}
        onInsert={(name) => edit(`${text}${text && !/\s$/.test(text) ? ' ' : ''}${name}`)}
      />
      <div className="flex min-h-0 min-w-0 flex-1 flex-col">
        <section
          aria-label="Query"
          className="bg-surface flex shrink-0 flex-col"
          style={{ height: editorPx }}
        >
          <div className="min-h-0 flex-1">
            <Editor
              text={text}
              schema={schema}
              mark={query.mark}
              onChange={edit}
              onSelect={note}
              onRun={run}
              onCancel={query.cancel}
            />
          </div>
          <div className="border-line flex items-center gap-2 border-t px-3 py-1.5">
            {running ? (
              <button type="button" className="button button-danger" onClick={query.cancel}>
                <Square size={12} aria-hidden className="fill-current" /> Cancel{' '}
                <kbd className="kbd max-sm:hidden">Esc</kbd>
              </button>
            ) : (
              <button
                type="button"
                className="button button-primary"
                disabled={text.trim() === ''}
                onClick={() =>
                  run(
                    selection.current?.range ?? { from: 0, to: 0 },
                    selection.current?.head ?? text.length,
                  )
                }
              >
                <Play size={13} aria-hidden className="fill-current" /> Run
              </button>
            )}
            <span className="text-ink-3 text-xs max-sm:hidden">
              <kbd className="kbd">{modName()}</kbd> <kbd className="kbd">Enter</kbd> runs the
              statement at the cursor
            </span>
            <label className="text-ink-3 ml-auto flex items-center gap-2 text-xs">
              Engine
              <select
                className="field"
                value={engine}
                title="Auto asks DuckDB, and EM-√ where that runs out of memory"
                onChange={(event) => setEngine(event.target.value as Engine)}
              >
                {Object.entries(ENGINES).map(([name, label]) => (
                  <option key={name} value={name}>
                    {label}
                  </option>
                ))}
              </select>
            </label>
          </div>
        </section>
        <SplitHandle size={editorPx} onSize={setEditorPx} />
        <ResultPane state={query.state} onCancel={query.cancel} />
      </div>
    </div>
  )
}
