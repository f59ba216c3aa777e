'use client'

import { useVirtualizer } from '@tanstack/react-virtual'
import { useEffect, useId, useMemo, useRef, useState, type KeyboardEvent } from 'react'

import type { Column } from '@/lib/api'
import { formatCell } from '@/lib/format'
import { copyText } from '@/lib/files'
import { isMac } from '@/lib/keyboard'
import type { RowsView } from '@/lib/pages'
import {
  bounds,
  moveSelection,
  selectionText,
  type Cell,
  type Selection,
} from '@/lib/sql/selection'

const ROW_PX = 27
const HEAD_PX = 42
const GUTTER_PX = 58
const CHARACTER_PX = 7.4
const SAMPLE_ROWS = 200
const START: Selection = { anchor: { row: 0, column: 0 }, focus: { row: 0, column: 0 } }

/** The rows of a result; only the visible rows are in the document. */
export function ResultGrid({
  columns,
  rows,
  measured,
  firstRow = 0,
  onShown,
  onCopied,
  label = 'Result',
}: {
  columns: Column[]
  rows: RowsView
  /** Rows to measure column widths from, where `rows` are not all in memory. */
  measured?: readonly (readonly unknown[])[]
  /** The number of the first row, less one. */
  firstRow?: number
  /** Called with the first and the last row in sight. */
  onShown?: (first: number, last: number) => void
  onCopied?: (text: string) => void
  label?: string
}) {
  const scroller = useRef<HTMLDivElement>(null)
  const id = useId()
  const [selection, setSelection] = useState(START)
  const [dragging, setDragging] = useState(false)
  const widths = useMemo(
    () => columns.map((column, index) => columnWidth(column, index, measured ?? rows)),
    [columns, rows, measured],
  )

  // eslint-disable-next-line react-hooks/incompatible-library -- its methods are read during this render only
  const vertical = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PX,
    overscan: 8,
    paddingStart: HEAD_PX,
    scrollPaddingStart: HEAD_PX,
  })
  const horizontal = useVirtualizer({
    horizontal: true,
    count: columns.length,
    getScrollElement: () => scroller.current,
    estimateSize: (index) => widths[index] ?? 120,
    overscan: 3,
    paddingStart: GUTTER_PX,
    scrollPaddingStart: GUTTER_PX,
  })

  useEffect(() => {
    if (!dragging) return
    const stop = () => setDragging(false)
    window.addEventListener('pointerup', stop)
    return () => window.removeEventListener('pointerup', stop)
  }, [dragging])

  const select = (next: Selection) => {
    setSelection(next)
    vertical.scrollToIndex(next.focus.row)
    horizontal.scrollToIndex(next.focus.column)
  }

  const press = (event: KeyboardEvent) => {
    const mod = isMac() ? event.metaKey : event.ctrlKey
    if (mod && event.key.toLowerCase() === 'c') {
      event.preventDefault()
      const text = selectionText(rows, selection, (value) =>
        value === null ? '' : formatCell(value),
      )
      if (text === null) onCopied?.('Not copied: scroll through the rows first, or save a file')
      else void copyText(text).then(() => onCopied?.(copiedNote(selection)))
      return
    }
    const page = Math.max(
      1,
      Math.floor(((scroller.current?.clientHeight ?? 0) - HEAD_PX) / ROW_PX) - 1,
    )
    const next = moveSelection(
      selection,
      { key: event.key, shift: event.shiftKey, mod },
      { rows: rows.length, columns: columns.length, page },
    )
    if (!next) return
    event.preventDefault()
    select(next)
  }

  const point = (cell: Cell, extend: boolean) =>
    setSelection((last) => ({ anchor: extend ? last.anchor : cell, focus: cell }))

  const { top, bottom, left, right } = bounds(selection)
  const shownRows = vertical.getVirtualItems()
  const shownColumns = horizontal.getVirtualItems()
  const [firstShown, lastShown] = [shownRows[0]?.index ?? 0, shownRows.at(-1)?.index ?? 0]
  useEffect(() => onShown?.(firstShown, lastShown), [onShown, firstShown, lastShown])
  const size = { width: horizontal.getTotalSize(), height: vertical.getTotalSize() }

  return (
    <div
      ref={scroller}
      role="grid"
      tabIndex={0}
      aria-label={label}
      aria-rowcount={rows.length + 1}
      aria-colcount={columns.length + 1}
      aria-multiselectable="true"
      aria-activedescendant={rows.length > 0 ? cellId(id, selection.focus) : undefined}
      onKeyDown={press}
      className="group relative h-full min-h-0 overflow-auto font-mono text-xs -outline-offset-2 select-none"
    >
      <div role="rowgroup" className="relative" style={size}>
        <div
          role="row"
          aria-rowindex={1}
          className="border-line bg-surface sticky top-0 z-20 border-b"
          style={{ height: HEAD_PX, width: size.width }}
        >
          <div
            role="columnheader"
            aria-colindex={1}
            className="bg-surface sticky left-0 z-10 inline-block"
            style={{ width: GUTTER_PX, height: HEAD_PX - 1 }}
          >
            <span className="sr-only">Row</span>
          </div>
          {shownColumns.map(({ index, start, size: width }) => (
            <div
              key={index}
              role="columnheader"
              aria-colindex={index + 2}
              className={`absolute top-0 flex flex-col justify-center px-2.5 ${isNumeric(columns[index]!.type) ? 'items-end' : 'items-start'}`}
              style={{ left: start, width, height: HEAD_PX - 1 }}
            >
              <span
                className="w-full truncate font-semibold"
                style={{ textAlign: 'inherit' }}
                title={columns[index]!.name}
              >
                <span
                  className={
                    isNumeric(columns[index]!.type) ? 'block truncate text-right' : 'block truncate'
                  }
                >
                  {columns[index]!.name}
                </span>
              </span>
              <span className="text-2xs text-ink-3 leading-4">{columns[index]!.type}</span>
            </div>
          ))}
        </div>
        {shownRows.map(({ index: row, start: y }) => (
          <div
            key={row}
            role="row"
            aria-rowindex={row + 2}
            className={`absolute left-0 ${row >= top && row <= bottom ? '' : 'hover:bg-hover'}`}
            style={{ top: y, height: ROW_PX, width: size.width }}
            aria-busy={rows.at(row) === undefined}
          >
            <div
              role="rowheader"
              aria-colindex={1}
              className={`border-line text-2xs sticky left-0 z-10 inline-block border-r px-2 text-right ${row >= top && row <= bottom ? 'bg-surface text-ink-3 group-focus:bg-accent-soft group-focus:text-ink' : 'bg-surface text-ink-3'}`}
              style={{ width: GUTTER_PX, height: ROW_PX, lineHeight: `${ROW_PX}px` }}
            >
              {firstRow + row + 1}
            </div>
            {shownColumns.map(({ index: column, start: x, size: width }) => {
              const values = rows.at(row)
              const value = values?.[column]
              const text = values ? formatCell(value) : '…'
              const selected = row >= top && row <= bottom && column >= left && column <= right
              const active = row === selection.focus.row && column === selection.focus.column
              return (
                <div
                  key={column}
                  id={cellId(id, { row, column })}
                  role="gridcell"
                  aria-colindex={column + 2}
                  aria-selected={selected}
                  title={text.length * CHARACTER_PX > width - 20 ? text : undefined}
                  onPointerDown={(event) => {
                    if (event.button !== 0) return
                    setDragging(true)
                    point({ row, column }, event.shiftKey)
                  }}
                  onPointerEnter={() => dragging && point({ row, column }, true)}
                  className={`border-line absolute top-0 cursor-default truncate border-b px-2.5 ${isNumeric(columns[column]!.type) ? 'text-right' : ''} ${
                    selected ? 'group-focus:bg-accent-soft' : ''
                  } ${active ? 'ring-accent group-focus:ring-2 group-focus:ring-inset' : ''} ${value === null || !values ? 'text-ink-3 italic' : ''}`}
                  style={{ left: x, width, height: ROW_PX, lineHeight: `${ROW_PX - 1}px` }}
                >
                  {text.length > 500 ? `${text.slice(0, 500)}…` : text}
                </div>
              )
            })}
          </div>
        ))}
      </div>
    </div>
  )
}

function cellId(grid: string, { row, column }: Cell): string {
  return `${grid}-${row}-${column}`
}

/** Numbers are right-aligned, so that their digits line up. */
export function isNumeric(type: string): boolean {
  return /^(U?Int|Float|Decimal)/i.test(type)
}

function columnWidth(column: Column, index: number, rows: RowsView): number {
  let characters = Math.max(column.name.length + 1, column.type.length)
  const step = Math.max(1, Math.floor(rows.length / SAMPLE_ROWS))
  for (let row = 0; row < rows.length; row += step) {
    characters = Math.max(characters, formatCell(rows.at(row)?.[index]).length)
  }
  return Math.round(Math.min(420, Math.max(64, characters * CHARACTER_PX + 24)))
}

function copiedNote(selection: Selection): string {
  const { top, bottom, left, right } = bounds(selection)
  const cells = (bottom - top + 1) * (right - left + 1)
  return cells === 1 ? 'Cell copied' : `${cells.toLocaleString('en-US')} cells copied`
}
