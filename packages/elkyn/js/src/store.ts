/** A tree in this process or page: independent, or a replica that follows a server. */

import { placesOf } from './edits.ts'
import { BadValue, Closed, ElkynError, Offline } from './errors.ts'
import type { TokenSource } from './authorizedStream.ts'
import type { QueueStorage } from './storedWrites.ts'
import { type Entry, type Log, MemoryLog, type OpenLog } from './log.ts'
import { type Change, type Edit, Overlay } from './overlay.ts'
import { formatPath, parsePath, type Path, refuseNested } from './paths.ts'
import { PushIds } from './pushIds.ts'
import { Replica } from './replica.ts'
import type { OpenStream } from './stream.ts'
import { type Callback, checkListener, type EventType, Tree } from './tree.ts'
import { fromJson, getAt, type Json, prepare, present, type Stored, type Value } from './values.ts'

export type Mode = 'standalone' | 'memory' | 'replica'

export interface StoreOptions {
  /** `standalone` stores writes on disk, `memory` does not, `replica` follows a server. */
  mode: Mode
  /** A folder in Node, a name in a browser. A replica without one stores nothing. */
  path?: string | undefined
  /** The URL of the server that a replica follows. */
  url?: string | undefined
  /** The token for that server. */
  token?: TokenSource
  /** The namespace of the tree on that server. */
  namespace?: string | undefined
  /** The subtrees that a replica holds. */
  paths?: readonly string[] | undefined
  /** Stores a replica's pending writes across restarts while offline: `localStorage`. */
  storage?: QueueStorage | undefined
  /** Opens a replica's streams: by default one event stream for each path. */
  streams?: OpenStream | undefined
  /** Whether each write is synced before it settles (Node). */
  sync?: boolean | undefined
  /** Called with the reason when a replica stops following. */
  onError?: ((error: Error) => void) | undefined
}

export class EmbeddedStore {
  /**
   * Settles when the store is readable: once its stored state is loaded, and for a replica once it
   * has had a full state of the server, in this process or an earlier one. Rejects when the server
   * refuses the replica.
   */
  readonly ready: Promise<void>
  private readonly overlay = new Overlay()
  private readonly tree = new Tree()
  private readonly log: Log
  private readonly pushIds = new PushIds()
  private readonly replica: Replica | null
  private readonly edits = new Map<Entry, Edit>()
  private readonly writing = new Set<Promise<void>>()
  private seen: Record<string, string> = {}
  private state: 'loading' | 'open' | 'closed' = 'loading'
  private readonly loaded: Promise<void>
  /** False until a replica has the first state of every path; earlier reads would be wrong. */
  private isReadable: boolean
  private readonly firstState = new Settled()

  constructor(options: StoreOptions, openLog: OpenLog) {
    checkOptions(options)
    const isKept = options.mode === 'standalone' || (options.mode === 'replica' && !!options.path)
    this.log = isKept ? openLog(options.path ?? 'elkyn', options.sync ?? true) : new MemoryLog()
    const loaded = this.log.load({
      applied: (entry) => this.apply(entry),
      snapshot: () => ({ changes: [['/', present(this.overlay.known)]], seen: this.seen }),
    })
    this.replica = options.mode === 'replica' ? this.replicaOf(options) : null
    this.isReadable = this.replica === null
    if (this.isReadable) this.firstState.resolve()
    if (Array.isArray(loaded)) {
      this.begin(loaded)
      this.loaded = Promise.resolve()
    } else {
      this.loaded = loaded.then((entries) => this.begin(entries))
    }
    this.ready = this.loaded.then(() => this.firstState.promise)
    void this.ready.catch(() => undefined) // a caller that awaits it gets the error
  }

  /**
   * Return the current value at `path`; null when there is none.
   *
   * @throws Offline when a replica has not received its first state: await `ready`
   */
  get(path: string): Json {
    this.checkReadable()
    return present(this.tree.get(parsePath(path)))
  }

  /**
   * Replace the value at `path`. Visible at once; the promise settles when it is stored, for a
   * replica when the server has it.
   */
  async set(path: string, value: Value): Promise<void> {
    const keys = parsePath(path)
    if (this.replica) return this.replica.client.set(path, value)
    await this.write([[keys, value]])
  }

  /** Replace several children of `path` in one atomic write; keys may be paths. */
  async update(path: string, values: { readonly [key: string]: Value }): Promise<void> {
    const base = parsePath(path)
    if (this.replica) return this.replica.client.update(path, values)
    if (values === null || typeof values !== 'object' || Array.isArray(values)) {
      throw new BadValue(formatPath(base), 'an update needs an object of children')
    }
    const places = placesOf(base, values)
    refuseNested(places.map(([place]) => place))
    await this.write(places)
  }

  /** Add `value` under a new key that sorts after all earlier ones. */
  push(path: string, value: Value): { key: string; done: Promise<void> } {
    const key = this.pushIds.next()
    return { key, done: this.set(`${path}/${key}`, value) }
  }

  /** Delete the value at `path`, with all its children. */
  delete(path: string): Promise<void> {
    return this.set(path, null)
  }

  /** Call `callback` for the value at `path` and each change; returns the unsubscribe function. */
  on(path: string, type: EventType, callback: Callback): () => void {
    if (this.state === 'closed') throw new Closed('the store')
    checkListener(type, callback)
    const keys = parsePath(path)
    if (this.state === 'open' && this.isReadable) return this.tree.on(keys, type, callback)
    let stop: () => void = () => undefined
    let isWanted = true
    void this.ready.then(
      () => {
        if (isWanted && this.state === 'open') stop = this.tree.on(keys, type, callback)
      },
      () => undefined,
    )
    return () => {
      isWanted = false
      stop()
    }
  }

  /** End listeners and streams, and close the files once everything is stored. */
  async close(): Promise<void> {
    if (this.state === 'loading') await this.loaded.catch(() => undefined)
    if (this.state === 'closed') return
    this.state = 'closed'
    this.firstState.reject(new Closed('the store'))
    this.tree.clear()
    this.replica?.close()
    await Promise.allSettled(this.writing)
    await this.log.close()
  }

  private begin(entries: readonly Entry[]): void {
    for (const entry of entries) this.settle(entry)
    this.state = 'open'
    this.show()
    this.replica?.start(() => this.seen)
  }

  private async write(places: readonly (readonly [Path, Value])[]): Promise<void> {
    if (this.state === 'closed') throw new Closed('the store')
    const now = Date.now()
    const current = (path: Path) => this.tree.get(path)
    const stored = places.map(([path, value]) => ({
      path,
      value: prepare(value, path, { now, current }),
    }))
    const isOpen = this.state === 'open'
    const changes = places.map(([path, value], index): readonly [string, Json] => [
      formatPath(path),
      this.log.isShared ? plain(value) : present(stored[index]?.value ?? null),
    ])
    if (!isOpen) await this.loaded
    this.checkOpen()
    await this.keep(this.log.isShared ? { changes, now } : { changes })
  }

  /** Show an entry, and store it; a synchronous log has it on the disk before it is shown. */
  private keep(entry: Entry): Promise<void> {
    const edit = editOf(entry)
    this.edits.set(entry, edit)
    this.overlay.add(edit)
    const done = this.appended(entry).catch((error: Error) => {
      this.withdraw(entry)
      throw error
    })
    this.writing.add(done)
    void done.catch(() => undefined).finally(() => this.writing.delete(done))
    this.show()
    return done
  }

  private appended(entry: Entry): Promise<void> {
    try {
      return Promise.resolve(this.log.append(entry))
    } catch (error) {
      this.withdraw(entry)
      return Promise.reject(error as Error)
    }
  }

  private withdraw(entry: Entry): void {
    const edit = this.edits.get(entry)
    if (!edit) return
    this.edits.delete(entry)
    this.overlay.drop(edit)
    this.show()
  }

  /** An entry is in the log. */
  private apply(entry: Entry): void {
    this.settle(entry)
    if (this.edits.size === 0 || this.log.isShared) this.show()
  }

  private settle(entry: Entry): void {
    const edit = this.edits.get(entry)
    this.edits.delete(entry)
    const known = this.overlay.known
    const changes = editOf(entry).map(({ path, value }): Change => ({ path, value: value(known) }))
    this.overlay.settle(changes, edit)
    this.seen = { ...this.seen, ...entry.seen }
    this.replica?.settled(changes, entry.seen ?? {})
    if (this.replica?.isCoveredBy(this.seen)) {
      this.isReadable = true
      this.firstState.resolve()
    }
  }

  private show(): void {
    this.tree.show(this.overlay.shown)
  }

  private replicaOf(options: StoreOptions): Replica {
    return new Replica(options, this.overlay, {
      isShared: this.log.isShared,
      event: (changes, seen) => {
        const places = changes.map(({ path, value }) => [formatPath(path), present(value)] as const)
        return this.keep({ changes: places, ...(seen && { seen }) })
      },
      changed: () => this.show(),
      failed: (error) => this.firstState.reject(error),
    })
  }

  private checkReadable(): void {
    this.checkOpen()
    if (this.isReadable) return
    throw new Offline('this replica has not received the state of its server: await store.ready')
  }

  private checkOpen(): void {
    if (this.state === 'closed') throw new Closed('the store')
    if (this.state === 'loading') throw new ElkynError('the store is being read: await store.ready')
  }
}

/** A promise that is settled from outside; only the first call counts. */
class Settled {
  resolve: () => void = () => undefined
  reject: (error: Error) => void = () => undefined
  readonly promise = new Promise<void>((resolve, reject) => {
    this.resolve = resolve
    this.reject = reject
  })
}

function checkOptions({ mode, url }: StoreOptions): void {
  if (!['standalone', 'memory', 'replica'].includes(mode)) {
    throw new ElkynError(`unknown mode "${String(mode)}": use standalone, memory or replica`)
  }
  if (mode === 'replica' && !url) {
    throw new ElkynError('a replica needs the url of the server that it follows')
  }
  if (url) new URL(url)
}

/** The edit of an entry. */
function editOf({ changes, now }: Entry): Edit {
  return changes.map(([text, json]) => {
    const path = parsePath(text)
    if (now === undefined) {
      const value = fromJson(json)
      return { path, value: () => value }
    }
    const at = (root: Stored) => (place: Path) => getAt(root, place)
    return { path, value: (root) => prepare(json, path, { now, current: at(root) }) }
  })
}

function plain(value: Value): Json {
  return JSON.parse(JSON.stringify(value ?? null)) as Json
}
