/** The columns that are in scope at the cursor. */

import { statementAt } from './statements'

/** A column and the table it is of. */
export interface ScopedColumn {
  table: string
  column: string
}

const WORD = /"(?:[^"]|"")*"|[\p{L}_][\p{L}\p{N}_$]*/gu

/** Columns of every table that the statement at `position` names, in the order of the tables. */
export function columnsInScope(
  text: string,
  position: number,
  tables: Readonly<Record<string, readonly string[]>>,
): ScopedColumn[] {
  const statement = statementAt(text, position)
  if (!statement) return []
  const known = new Map(Object.keys(tables).map((name) => [fold(name), name]))
  const named = new Set<string>()
  for (const [word] of statement.text.matchAll(WORD)) {
    const table = known.get(fold(word))
    if (table !== undefined) named.add(table)
  }
  return [...named].flatMap((table) => (tables[table] ?? []).map((column) => ({ table, column })))
}

/** Names are the same in any case, with or without quotes. */
function fold(name: string): string {
  const bare = name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name
  return bare.toLowerCase()
}
