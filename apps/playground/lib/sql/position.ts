/** Where in the editor an error of the node belongs. */

/** A range of characters. */
export interface Range {
  from: number
  to: number
}

const WORD = /[\p{L}\p{N}_$]/u

/**
 * The range of a SQL error within the text that was sent. Positions come as `offset` (from 0, in
 * Unicode characters) or as `line` and `column` (from 1); null when the error names no place.
 */
export function errorRange(sql: string, details: Record<string, unknown>): Range | null {
  const offset =
    typeof details.offset === 'number' ? utf16Offset(sql, details.offset) : lineOffset(sql, details)
  if (offset === null) return null
  const from = Math.min(Math.max(0, offset), sql.length)
  if (from === sql.length) return { from: Math.max(0, from - 1), to: from }
  let to = from + 1
  if (WORD.test(sql[from]!)) while (to < sql.length && WORD.test(sql[to]!)) to += 1
  return { from, to }
}

/** The range of the first occurrence of a name as a word; for errors that have only the name. */
export function nameRange(sql: string, name: string): Range | null {
  const escaped = name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  const found = new RegExp(`(?<![\\p{L}\\p{N}_$])${escaped}(?![\\p{L}\\p{N}_$])`, 'iu').exec(sql)
  return found ? { from: found.index, to: found.index + found[0].length } : null
}

/** Editors count UTF-16 units, the node counts characters. */
function utf16Offset(text: string, characters: number): number {
  let units = 0
  for (const character of text) {
    if (characters-- <= 0) break
    units += character.length
  }
  return units
}

function lineOffset(sql: string, details: Record<string, unknown>): number | null {
  const { line, column } = details
  if (typeof line !== 'number') return null
  const lines = sql.split('\n')
  const before = lines
    .slice(0, Math.max(0, line - 1))
    .reduce((sum, each) => sum + each.length + 1, 0)
  const inLine = utf16Offset(
    lines[line - 1] ?? '',
    typeof column === 'number' ? Math.max(0, column - 1) : 0,
  )
  return before + inLine
}
