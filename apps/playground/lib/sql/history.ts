/** The queries of this browser, newest first, kept in local storage. */

import { Store } from '../store'

/** One query that was run. */
export interface HistoryEntry {
  id: string
  sql: string
  atMs: number
  elapsedMs: number
  outcome: 'done' | 'failed' | 'cancelled'
  rows: number | null
  truncated?: boolean
  error?: string
}

const KEY = 'sennit.history'
const LIMIT = 200

/** The history after one more query; a repeat of the newest text replaces it. */
export function addEntry(history: readonly HistoryEntry[], entry: HistoryEntry): HistoryEntry[] {
  const rest = history[0]?.sql === entry.sql ? history.slice(1) : history
  return [entry, ...rest].slice(0, LIMIT)
}

/** What storage holds, or nothing where it holds something else. */
export function parseHistory(text: string | null): HistoryEntry[] {
  try {
    const value: unknown = JSON.parse(text ?? '[]')
    return Array.isArray(value) ? value.filter(isEntry) : []
  } catch {
    return []
  }
}

function isEntry(value: unknown): value is HistoryEntry {
  if (typeof value !== 'object' || value === null) return false
  const { id, sql, atMs, outcome } = value as Partial<HistoryEntry>
  return (
    typeof id === 'string' &&
    typeof sql === 'string' &&
    typeof atMs === 'number' &&
    typeof outcome === 'string'
  )
}

/** The history as components watch it; null until it was read from storage. */
export const history = new Store<HistoryEntry[] | null>(null)

/** Read the history, and follow the other tabs of this browser. */
export function openHistory(): void {
  if (history.get() !== null) return
  history.set(parseHistory(stored()))
  window.addEventListener('storage', (event) => {
    if (event.key === KEY) history.set(parseHistory(event.newValue))
  })
}

/** Note a query that has ended. */
export function remember(entry: Omit<HistoryEntry, 'id'>): void {
  keep(
    addEntry(history.get() ?? [], {
      ...entry,
      id: `${entry.atMs}-${Math.random().toString(36).slice(2, 8)}`,
    }),
  )
}

/** Forget every query. */
export function clearHistory(): void {
  keep([])
}

function keep(entries: HistoryEntry[]): void {
  history.set(entries)
  try {
    localStorage.setItem(KEY, JSON.stringify(entries))
  } catch {
    // Storage is full or refused: the history then lasts as long as the page.
  }
}

function stored(): string | null {
  try {
    return localStorage.getItem(KEY)
  } catch {
    return null
  }
}
