/** The rows of a long answer, fetched in pages as they come into sight; few are held at once. */

import { asApiError, isAbort, type ApiError, type Column, type SqlAnswer } from './api'

/** Rows by index, as arrays have them; a row that is not in memory is undefined. */
export interface RowsView {
  readonly length: number
  at(index: number): readonly unknown[] | undefined
}

/** Fetch `limit` rows after `offset`. */
export type FetchRows = (offset: number, limit: number, signal: AbortSignal) => Promise<SqlAnswer>

const FIRST_ROWS = 50
const PAGE_ROWS_MAX = 500
/** Cells and characters of one page: rows with many columns or long values come in smaller pages. */
const PAGE_CHARACTERS = 1_000_000
const PAGES_HELD = 12
const PAGES_AT_ONCE = 2

/** A window on `total` rows; `want` names the rows in sight, `subscribe` says when more are here. */
export class PagedRows implements RowsView {
  columns: Column[] | null = null
  /** The first rows, from which column widths are measured. */
  first: unknown[][] = []
  error: ApiError | null = null
  private pageRows = PAGE_ROWS_MAX
  private version = 0
  private wanted: number[] = []
  /** Pages in order of their last use, the oldest first. */
  private readonly pages = new Map<number, unknown[][]>()
  private readonly loading = new Map<number, AbortController>()
  private readonly listeners = new Set<() => void>()

  constructor(
    readonly length: number,
    private readonly fetchRows: FetchRows,
  ) {}

  readonly getVersion = (): number => this.version

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  at(index: number): readonly unknown[] | undefined {
    const page = this.pages.get(Math.floor(index / this.pageRows))
    return page?.[index % this.pageRows] ?? this.first[index]
  }

  /** Fetch the columns and the first rows; also tries again after an error. */
  start(): void {
    if (this.error) {
      this.error = null
      this.notify()
    }
    if (this.columns) this.fill()
    else if (!this.loading.has(-1)) void this.load(-1)
  }

  /** Drop every request; `start` and `want` begin anew. */
  stop(): void {
    for (const control of this.loading.values()) control.abort()
    this.loading.clear()
  }

  /** Name the rows in sight, the last one included. */
  want(from: number, to: number): void {
    const last = Math.floor(Math.min(to, this.length - 1) / this.pageRows)
    this.wanted = []
    for (let page = Math.floor(from / this.pageRows); page <= last; page += 1)
      this.wanted.push(page)
    for (const [page, control] of this.loading) {
      if (page === -1 || this.wanted.includes(page)) continue
      control.abort() // scrolled past before it came
      this.loading.delete(page)
    }
    this.fill()
  }

  private fill(): void {
    if (!this.columns || this.error) return
    for (const page of this.wanted) {
      const rows = this.pages.get(page)
      if (rows) {
        this.pages.delete(page)
        this.pages.set(page, rows)
      } else if (!this.loading.has(page) && this.loading.size < PAGES_AT_ONCE) void this.load(page)
    }
  }

  private async load(page: number): Promise<void> {
    const control = new AbortController()
    this.loading.set(page, control)
    const probe = page === -1
    try {
      const answer = await this.fetchRows(
        probe ? 0 : page * this.pageRows,
        probe ? FIRST_ROWS : this.pageRows,
        control.signal,
      )
      if (control.signal.aborted) return
      if (probe) this.begin(answer)
      else this.keep(page, answer.rows)
    } catch (reason) {
      if (control.signal.aborted || isAbort(reason)) return
      this.error = asApiError(reason)
    } finally {
      if (this.loading.get(page) === control) this.loading.delete(page)
    }
    this.notify()
    this.fill()
  }

  private notify(): void {
    this.version += 1
    this.listeners.forEach((listener) => listener())
  }

  private begin({ columns, rows }: SqlAnswer): void {
    const characters = JSON.stringify(rows).length / Math.max(1, rows.length)
    this.pageRows = Math.max(
      1,
      Math.min(PAGE_ROWS_MAX, Math.floor(PAGE_CHARACTERS / Math.max(1, characters))),
    )
    this.columns = columns
    this.first = rows
    this.wanted = [0]
  }

  private keep(page: number, rows: unknown[][]): void {
    this.pages.set(page, rows)
    for (const oldest of this.pages.keys()) {
      if (this.pages.size <= PAGES_HELD) break
      this.pages.delete(oldest)
    }
  }
}

/** A part of rows as rows of their own, so that a grid never becomes taller than browsers allow. */
export function windowOf(rows: RowsView, start: number, length: number): RowsView {
  return {
    length: Math.max(0, Math.min(length, rows.length - start)),
    at: (index) => rows.at(start + index),
  }
}
