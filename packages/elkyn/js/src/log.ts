/** Where an embedded store keeps its writes: a log of changes that is shortened now and then. */

import type { Json } from './values'

/** One atomic write: replaced places by path; a replica also notes how far it has followed. */
export interface Entry {
  changes: readonly (readonly [path: string, value: Json])[]
  /** Position of the followed server, by followed path. */
  seen?: Readonly<Record<string, string>>
}

export interface Log {
  /** Everything kept, in order: at once, or when it has been read. */
  load(): Entry[] | Promise<Entry[]>
  /** Keep `entry`; done when it is on the disk. Order of calls is order of entries. */
  append(entry: Entry): void | Promise<void>
  /** Replace everything by what `entry` says, all or nothing. */
  compact(entry: Entry): void | Promise<void>
  close(): void | Promise<void>
}

/** Keeps nothing: the store ends with the page or process. */
export const memoryLog: Log = {
  load: () => [],
  append: () => undefined,
  compact: () => undefined,
  close: () => undefined,
}
