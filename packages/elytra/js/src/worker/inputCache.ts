/**
 * Inputs that a worker keeps for later tasks, within a budget of bytes.
 *
 * An entry is found by the SHA-256 of its stream, which is its ETag at the node; the worker compares what
 * it reads with it, so a damaged or changed entry is fetched again. The oldest go first.
 */

import type { Task } from './messages.ts'

/** Where entries are. Its functions may fail: a worker then goes on without it. */
export interface InputStore {
  /** All entries, the oldest first. */
  entries: () => Promise<InputEntry[]>
  read: (entry: InputEntry) => Promise<Uint8Array<ArrayBuffer> | null>
  write: (entry: InputEntry, bytes: Uint8Array<ArrayBuffer>) => Promise<void>
  remove: (entry: InputEntry) => Promise<void>
}

export interface InputEntry {
  sha256: string
  /** The object id of the shard: the node gives tasks over it to workers that have it. */
  object: string
  bytes: number
}

/** As many as a `hello` may name. */
const CACHED_MAX = 512

export class InputCache {
  constructor(
    private readonly store: InputStore,
    private bytesMax: number,
  ) {}

  /** Change the budget; what is over it goes. */
  async limit(bytesMax: number): Promise<void> {
    this.bytesMax = bytesMax
    await this.makeRoom(0)
  }

  /** The object ids of the shards whose inputs are here, the newest first. */
  async objects(): Promise<string[]> {
    if (this.bytesMax <= 0) return []
    const entries = await this.store.entries().catch(() => [])
    const newest = entries.reverse().map(({ object }) => object)
    return [...new Set(newest)].slice(0, CACHED_MAX)
  }

  /** The bytes of a task's input, not compared with its SHA-256 yet; null if they are not here. */
  async get(task: Task): Promise<Uint8Array<ArrayBuffer> | null> {
    const entry = entryOf(task)
    return entry && this.bytesMax > 0 ? this.store.read(entry).catch(() => null) : null
  }

  /** Keep an input, if it fits; what fails here fails no task. */
  async put(task: Task, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const entry = entryOf(task)
    if (!entry || entry.bytes > this.bytesMax) return
    try {
      await this.makeRoom(entry.bytes)
      await this.store.write(entry, bytes)
    } catch {
      // The disk is full, or storage is refused.
    }
  }

  private async makeRoom(more: number): Promise<void> {
    const entries = await this.store.entries().catch(() => [])
    let over = entries.reduce((total, { bytes }) => total + bytes, more) - this.bytesMax
    for (const entry of entries) {
      if (over <= 0) return
      await this.store.remove(entry)
      over -= entry.bytes
    }
  }
}

/** The entry of a task's input; null if the node's words are of another form, which no path must have. */
function entryOf({ spec, inputSha256, inputBytes }: Task): InputEntry | null {
  const object = spec.inputs[0]?.id ?? ''
  return entryOfName(entryName({ sha256: inputSha256, object, bytes: inputBytes }))
}

/** An entry as one word, for a file name or an address. */
export function entryName({ sha256, object, bytes }: InputEntry): string {
  return `${sha256}-${object}-${bytes}`
}

/** The entry of a word; null for one of another form. */
export function entryOfName(name: string): InputEntry | null {
  const found = /^([0-9a-f]{64})-([0-9a-f]{64})-(\d{1,12})$/.exec(name)
  const [, sha256, object, bytes] = found ?? []
  if (sha256 === undefined || object === undefined) return null
  return { sha256, object, bytes: Number(bytes) }
}
