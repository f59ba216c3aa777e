/** The selection of a result grid: a rectangle between a fixed corner and a moving one. */

import type { RowsView } from '../pages'

/** A cell by index. */
export interface Cell {
  row: number
  column: number
}

/** `anchor` stays where selecting began; `focus` is the active cell. */
export interface Selection {
  anchor: Cell
  focus: Cell
}

/** What a key press asks of the grid. */
export interface GridKey {
  key: string
  shift: boolean
  mod: boolean
}

/** Rows and columns of the grid, and rows of one screen. */
export interface GridSize {
  rows: number
  columns: number
  page: number
}

/** The selection after a key, or null when the key means nothing to a grid. */
export function moveSelection(
  selection: Selection,
  { key, shift, mod }: GridKey,
  size: GridSize,
): Selection | null {
  const last = { row: size.rows - 1, column: size.columns - 1 }
  if (mod && key.toLowerCase() === 'a') return { anchor: { row: 0, column: 0 }, focus: last }
  const focus = target(selection.focus, key, mod, size)
  if (!focus) return null
  const inside = { row: clamp(focus.row, last.row), column: clamp(focus.column, last.column) }
  return { anchor: shift ? selection.anchor : inside, focus: inside }
}

function target({ row, column }: Cell, key: string, mod: boolean, size: GridSize): Cell | null {
  switch (key) {
    case 'ArrowUp':
      return { row: mod ? 0 : row - 1, column }
    case 'ArrowDown':
      return { row: mod ? size.rows : row + 1, column }
    case 'ArrowLeft':
      return { row, column: mod ? 0 : column - 1 }
    case 'ArrowRight':
      return { row, column: mod ? size.columns : column + 1 }
    case 'PageUp':
      return { row: row - size.page, column }
    case 'PageDown':
      return { row: row + size.page, column }
    case 'Home':
      return { row: mod ? 0 : row, column: 0 }
    case 'End':
      return { row: mod ? size.rows : row, column: size.columns }
    default:
      return null
  }
}

function clamp(value: number, max: number): number {
  return Math.max(0, Math.min(value, max))
}

/** The rectangle of a selection, with its ends included. */
export function bounds({ anchor, focus }: Selection): {
  top: number
  bottom: number
  left: number
  right: number
} {
  return {
    top: Math.min(anchor.row, focus.row),
    bottom: Math.max(anchor.row, focus.row),
    left: Math.min(anchor.column, focus.column),
    right: Math.max(anchor.column, focus.column),
  }
}

/** The selected cells as text that spreadsheets understand; null when a row is not in memory. */
export function selectionText(
  rows: RowsView,
  selection: Selection,
  show: (value: unknown) => string,
): string | null {
  const { top, bottom, left, right } = bounds(selection)
  const lines: string[] = []
  for (let index = top; index <= bottom; index += 1) {
    const row = rows.at(index)
    if (!row) return null
    if (top === bottom && left === right) return show(row[left])
    lines.push(
      row
        .slice(left, right + 1)
        .map((value) => tabbed(show(value)))
        .join('\t'),
    )
  }
  return lines.join('\n')
}

/** A field with a tab, a line break or a quote is quoted, as spreadsheets write it. */
function tabbed(text: string): string {
  return /[\t\n\r"]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
