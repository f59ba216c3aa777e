/** The log of an embedded store's writes, which is compacted from time to time. */

import type { Json } from './values.ts'

/** One atomic write: replaced places by path; for a replica also the positions it has reached. */
export interface Entry {
  changes: readonly (readonly [path: string, value: Json])[]
  /** The time for server values, which are resolved against the state before this entry. */
  now?: number
  /** The followed server's position, by followed path. */
  seen?: Readonly<Record<string, string>>
}

/** Callbacks of a log to its store. */
export interface LogListener {
  /** An entry of this store (the same object) or another one is stored: in the log's order. */
  applied(entry: Entry): void
  /** The whole state, as one entry. */
  snapshot(): Entry
}

export interface Log {
  /** Whether other stores may also write to the log. */
  readonly isShared: boolean
  /** All stored entries, in order: at once, or when they have been read. */
  load(listener: LogListener): Entry[] | Promise<Entry[]>
  /** Append `entry`; done when it is on the disk. Entries have the order of the calls. */
  append(entry: Entry): void | Promise<void>
  close(): void | Promise<void>
}

/** Opens the log with a name. */
export type OpenLog = (name: string, sync: boolean) => Log

/** A log is compacted when it has this many entries, and twice the size of its state. */
export const COMPACT_ENTRIES = 4096

/** Stores nothing: the store ends with the page or process. */
export class MemoryLog implements Log {
  readonly isShared = false
  private listener: LogListener | null = null

  load(listener: LogListener): Entry[] {
    this.listener = listener
    return []
  }

  append(entry: Entry): void {
    this.listener?.applied(entry)
  }

  close(): void {
    this.listener = null
  }
}
