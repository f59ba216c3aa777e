/** Where an embedded store keeps its writes: a log of changes that is shortened now and then. */

import type { Json } from './values.js'

/** One atomic write: replaced places by path; a replica also notes how far it has followed. */
export interface Entry {
  changes: readonly (readonly [path: string, value: Json])[]
  /** The time for server values, which are resolved by what is there before this entry. */
  now?: number
  /** Position of the followed server, by followed path. */
  seen?: Readonly<Record<string, string>>
}

/** What a log tells its store. */
export interface LogListener {
  /** An entry is kept, of this store (the same object) or another's: in the order of the log. */
  taken(entry: Entry): void
  /** All that was taken, as one entry. */
  snapshot(): Entry
}

export interface Log {
  /** Whether other stores may write to it as well. */
  readonly isShared: boolean
  /** Everything kept, in order: at once, or when it has been read. */
  load(listener: LogListener): Entry[] | Promise<Entry[]>
  /** Keep `entry`; done when it is on the disk. Order of calls is order of entries. */
  append(entry: Entry): void | Promise<void>
  close(): void | Promise<void>
}

/** Opens the log of a name. */
export type OpenLog = (name: string, sync: boolean) => Log

/** A log is shortened when it has this many entries, and is twice as long as what it says. */
export const COMPACT_ENTRIES = 4096

/** Keeps nothing: the store ends with the page or process. */
export class MemoryLog implements Log {
  readonly isShared = false
  private listener: LogListener | null = null

  load(listener: LogListener): Entry[] {
    this.listener = listener
    return []
  }

  append(entry: Entry): void {
    this.listener?.taken(entry)
  }

  close(): void {
    this.listener = null
  }
}
