'use client'

import {
  acceptCompletion,
  autocompletion,
  closeCompletion,
  closeBrackets,
  closeBracketsKeymap,
  completionKeymap,
  type Completion,
  type CompletionSource,
} from '@codemirror/autocomplete'
import { defaultKeymap, history, historyKeymap, toggleComment } from '@codemirror/commands'
import { sql, SQLDialect } from '@codemirror/lang-sql'
import { bracketMatching, syntaxHighlighting } from '@codemirror/language'
import { setDiagnostics } from '@codemirror/lint'
import { Compartment, EditorState, Prec } from '@codemirror/state'
import {
  drawSelection,
  EditorView,
  highlightActiveLine,
  highlightActiveLineGutter,
  keymap,
  lineNumbers,
  placeholder,
} from '@codemirror/view'
import { useEffect, useEffectEvent, useRef } from 'react'

import { FUNCTIONS, KEYWORDS, TYPES } from '@/lib/sql/dialect'
import type { Range } from '@/lib/sql/position'
import { columnsInScope } from '@/lib/sql/scope'

import { editorTheme, highlighting } from './editorTheme'

/** Tables and their columns, for completion. */
export type EditorSchema = Record<string, Completion[]>

/** An error at its place in the whole text. */
export interface EditorMark extends Range {
  message: string
}

export interface EditorProps {
  text: string
  schema: EditorSchema
  mark: EditorMark | null
  onChange: (text: string) => void
  onSelect: (selection: Range, head: number) => void
  /** Run what is selected, or (empty selection) the statement at `head`. */
  onRun: (selection: Range, head: number) => void
  /** Whether there was something to cancel. */
  onCancel: () => boolean
}

const DIALECT = SQLDialect.define({
  keywords: KEYWORDS,
  types: TYPES,
  builtin: FUNCTIONS,
  doubleQuotedStrings: false,
})

/** The SQL editor. It keeps its own text; `text` replaces it only when it differs. */
export default function Editor({
  text,
  schema,
  mark,
  onChange,
  onSelect,
  onRun,
  onCancel,
}: EditorProps) {
  const place = useRef<HTMLDivElement>(null)
  const view = useRef<EditorView | null>(null)
  const language = useRef(new Compartment())

  const changed = useEffectEvent(onChange)
  const selected = useEffectEvent(onSelect)
  const run = useEffectEvent(onRun)
  const cancel = useEffectEvent(onCancel)
  const initial = useEffectEvent(() => ({ text, schema }))

  useEffect(() => {
    const start = initial()
    const runHere = (here: EditorView) => {
      // An open completion list would handle the next Escape, which should cancel the query now.
      closeCompletion(here)
      const { from, to, head } = here.state.selection.main
      run({ from, to }, head)
      return true
    }
    const editor = new EditorView({
      parent: place.current!,
      state: EditorState.create({
        doc: start.text,
        selection: { anchor: start.text.length },
        extensions: [
          Prec.highest(
            keymap.of([
              { key: 'Mod-Enter', run: runHere },
              { key: 'Mod-/', run: toggleComment },
              { key: 'Tab', run: acceptCompletion },
            ]),
          ),
          // After completion's own Escape, so that closing a list cancels nothing.
          keymap.of([
            ...completionKeymap,
            { key: 'Escape', run: () => cancel() },
            ...closeBracketsKeymap,
            ...historyKeymap,
            ...defaultKeymap,
          ]),
          lineNumbers(),
          highlightActiveLine(),
          highlightActiveLineGutter(),
          drawSelection(),
          history(),
          bracketMatching(),
          closeBrackets(),
          autocompletion({ icons: false, interactionDelay: 0 }),
          EditorView.lineWrapping,
          placeholder('select …'),
          EditorView.contentAttributes.of({ 'aria-label': 'SQL', spellcheck: 'false' }),
          EditorView.updateListener.of(({ state, docChanged, selectionSet }) => {
            const { from, to, head } = state.selection.main
            if (docChanged || selectionSet) selected({ from, to }, head)
            if (docChanged) changed(state.doc.toString())
          }),
          language.current.of(languageFor(start.schema)),
          syntaxHighlighting(highlighting),
          editorTheme,
        ],
      }),
    })
    view.current = editor
    editor.focus()
    return () => {
      view.current = null
      editor.destroy()
    }
  }, [])

  useEffect(() => {
    const editor = view.current
    if (!editor || editor.state.doc.toString() === text) return
    editor.dispatch({
      changes: { from: 0, to: editor.state.doc.length, insert: text },
      selection: { anchor: text.length },
    })
  }, [text])

  useEffect(() => {
    view.current?.dispatch({ effects: language.current.reconfigure(languageFor(schema)) })
  }, [schema])

  useEffect(() => {
    const editor = view.current
    if (!editor) return
    const length = editor.state.doc.length
    const found =
      mark && mark.from <= length
        ? [{ ...mark, to: Math.min(mark.to, length), severity: 'error' as const }]
        : []
    editor.dispatch(setDiagnostics(editor.state, found))
    if (mark && found.length > 0)
      editor.dispatch({ effects: EditorView.scrollIntoView(mark.from, { y: 'nearest' }) })
  }, [mark])

  return <div ref={place} className="h-full min-h-0 overflow-hidden" />
}

function languageFor(schema: EditorSchema) {
  const columns = DIALECT.language.data.of({ autocomplete: columnSource(schema) })
  return [sql({ dialect: DIALECT, schema, upperCaseKeywords: false }), columns]
}

/** Columns of the tables that the statement names, without their table before them. */
function columnSource(schema: EditorSchema): CompletionSource {
  const names = Object.fromEntries(
    Object.entries(schema).map(([table, columns]) => [table, columns.map(({ label }) => label)]),
  )
  const types = new Map(
    Object.entries(schema).flatMap(([table, columns]) =>
      columns.map(({ label, detail }) => [`${table}.${label}`, detail]),
    ),
  )
  return (context) => {
    const { state, pos, explicit } = context
    const word = context.matchBefore(/[\w$]*/)
    const qualified = word !== null && state.sliceDoc(word.from - 1, word.from) === '.'
    if (!word || qualified || (word.from === word.to && !explicit)) return null
    const options = columnsInScope(state.doc.toString(), pos, names).map(({ table, column }) => ({
      label: column,
      detail: types.get(`${table}.${column}`) ?? '',
      type: 'property',
      boost: 10,
    }))
    return { from: word.from, options, validFor: /^[\w$]*$/ }
  }
}
