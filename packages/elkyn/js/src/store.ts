/** `ElkynStore`: a tree in this process or page, kept by itself, or a copy that follows a server. */

import { ElkynClient } from './client'
import { BadValue, Closed, ElkynError } from './errors'
import { FileLog } from './fileLog'
import { IndexedDbLog } from './indexedDbLog'
import { type Entry, type Log, memoryLog } from './log'
import { formatPath, parsePath, type Path } from './paths'
import { PushIds } from './pushIds'
import { type OpenStream, openStream, type StreamEvent } from './stream'
import { type Callback, type Change, type EventType, Tree } from './tree'
import { fromJson, type Json, prepare, present, type Value } from './values'

export type Mode = 'standalone' | 'memory' | 'replica'

export interface StoreOptions {
  /** `standalone` keeps what is written, `memory` does not, `replica` follows a server. */
  mode: Mode
  /** A folder in Node, the name of a database in a browser. A replica without one keeps nothing. */
  path?: string
  /** The server that a replica follows. */
  url?: string
  /** Its token. */
  token?: string | (() => string)
  /** Which of its trees. */
  namespace?: string
  /** Which parts of it a replica holds. */
  paths?: readonly string[]
  /** Whether each write reaches the disk before it is done (Node). */
  sync?: boolean
  /** Opens a replica's streams. */
  streams?: OpenStream
}

const COMPACT_ENTRIES = 4096

export class ElkynStore {
  /** Settles when what was kept has been read; in Node and in memory that is at once. */
  readonly ready: Promise<void>
  private readonly tree = new Tree()
  private readonly log: Log
  private readonly pushIds = new PushIds()
  private readonly client: ElkynClient | null
  private readonly streams: (() => void)[] = []
  private readonly seen: Record<string, string> = {}
  private entries = 0
  private state: 'loading' | 'open' | 'closed' = 'loading'
  private kept: Promise<void> = Promise.resolve()

  constructor(private readonly options: StoreOptions) {
    this.log = logFor(options)
    this.client = clientFor(options)
    const loaded = this.log.load()
    if (Array.isArray(loaded)) {
      this.begin(loaded)
      this.ready = Promise.resolve()
    } else {
      this.ready = loaded.then((entries) => this.begin(entries))
    }
  }

  /** The value at `path` now; null when there is none. */
  get(path: string): Json {
    this.checkOpen()
    return present(this.tree.get(parsePath(path)))
  }

  /**
   * Replace what is at `path`. Visible at once; the promise settles when it is kept, for a replica
   * when the server has it.
   */
  async set(path: string, value: Value): Promise<void> {
    const keys = parsePath(path)
    if (this.client) return this.client.set(path, value)
    if (this.state === 'loading') await this.ready
    await this.write([[keys, value]])
  }

  /** Replace several children of `path` in one atomic write; keys may be paths. */
  async update(path: string, values: { readonly [key: string]: Value }): Promise<void> {
    const base = parsePath(path)
    if (this.client) return this.client.update(path, values)
    if (this.state === 'loading') await this.ready
    const places = Object.entries(values).map(([relative, value]): [Path, Value] => [
      parsePath(`${formatPath(base)}/${relative}`),
      value,
    ])
    refuseNested(places.map(([place]) => place))
    await this.write(places)
  }

  /** Add `value` under a new key that sorts after all earlier ones. */
  push(path: string, value: Value): { key: string; done: Promise<void> } {
    const key = this.pushIds.next()
    return { key, done: this.set(`${path}/${key}`, value) }
  }

  /** Remove what is at `path` and below. */
  delete(path: string): Promise<void> {
    return this.set(path, null)
  }

  /** Call `callback` for what is at `path` and for each change; returns how to stop. */
  on(path: string, type: EventType, callback: Callback): () => void {
    if (this.state === 'closed') throw new Closed('the store')
    return this.tree.on(parsePath(path), type, callback)
  }

  /** End listeners and streams, and close the files once everything is kept. */
  async close(): Promise<void> {
    if (this.state === 'closed') return
    if (this.state === 'loading') await this.ready
    this.state = 'closed'
    this.tree.clear()
    for (const stop of this.streams) stop()
    this.client?.close()
    await this.kept.catch(() => undefined)
    await this.log.close()
  }

  private begin(entries: readonly Entry[]): void {
    for (const entry of entries) {
      Object.assign(this.seen, entry.seen)
      this.tree.apply(changesOf(entry))
    }
    this.entries = entries.length
    this.state = 'open'
    if (this.client) for (const path of this.options.paths ?? ['/']) this.follow(parsePath(path))
  }

  private async write(places: readonly [Path, Value][]): Promise<void> {
    this.checkOpen()
    const resolver = { now: Date.now(), current: (path: Path) => this.tree.get(path) }
    const changes = places.map(([path, value]) => ({ path, value: prepare(value, path, resolver) }))
    await this.keep(changes)
  }

  /** Keep changes, and show them once a synchronous log has them on its disk. */
  private keep(changes: readonly Change[], seen?: Record<string, string>): Promise<void> {
    const entry: Entry = {
      changes: changes.map(({ path, value }) => [formatPath(path), present(value)]),
      ...(seen && { seen }),
    }
    const done = this.log.append(entry)
    this.tree.apply(changes)
    this.entries += 1
    const compacting = this.entries > COMPACT_ENTRIES ? this.compact() : undefined
    this.kept = Promise.all([this.kept, done, compacting]).then(() => undefined)
    return this.kept
  }

  private compact(): void | Promise<void> {
    this.entries = 1
    return this.log.compact({ changes: [['/', present(this.tree.get([]))]], seen: this.seen })
  }

  private follow(path: Path): void {
    const { url, token, namespace, streams = openStream } = this.options
    const name = formatPath(path)
    const address = new URL(
      `${url?.replace(/\/+$/, '')}/${path.map(encodeURIComponent).join('/')}.json`,
    )
    if (namespace) address.searchParams.set('ns', namespace)
    const text = typeof token === 'function' ? token() : token
    const headers: Record<string, string> = text ? { authorization: `Bearer ${text}` } : {}
    const request = { url: address.href, headers, lastEventId: this.seen[name] ?? null }
    const stop = streams(request, {
      event: (event) => {
        if (event.id !== null) this.seen[name] = event.id
        this.keep(
          changesIn(path, event),
          event.id === null ? undefined : { [name]: event.id },
        ).catch(() => this.close())
      },
      online: () => undefined,
      refused: (error) => console.warn(`following ${name} was refused: ${error.message}`), // eslint-disable-line no-console -- nobody else hears it
    })
    this.streams.push(stop)
  }

  private checkOpen(): void {
    if (this.state === 'closed') throw new Closed('the store')
    if (this.state === 'loading') throw new ElkynError('the store is being read: await store.ready')
  }
}

function logFor({ mode, path, sync }: StoreOptions): Log {
  if (mode === 'memory' || (mode === 'replica' && path === undefined)) return memoryLog
  if (mode !== 'standalone' && mode !== 'replica') {
    throw new ElkynError(`mode "${String(mode)}" is not known: standalone, memory or replica`)
  }
  const name = path ?? 'elkyn'
  if (typeof indexedDB !== 'undefined') return new IndexedDbLog(name)
  return new FileLog(name, sync)
}

function clientFor({ mode, url, token, namespace }: StoreOptions): ElkynClient | null {
  if (mode !== 'replica') return null
  if (!url) throw new ElkynError('a replica needs the url of the server that it follows')
  return new ElkynClient(url, { ...(token && { token }), ...(namespace && { namespace }) })
}

function changesOf(entry: Entry): Change[] {
  return entry.changes.map(([path, value]) => ({ path: parsePath(path), value: fromJson(value) }))
}

function changesIn(base: Path, event: StreamEvent): Change[] {
  const at = [...base, ...parsePath(event.path)]
  if (event.type === 'put') return [{ path: at, value: fromJson(event.data) }]
  return Object.entries(event.data as { [key: string]: Json }).map(([relative, value]) => ({
    path: [...at, ...parsePath(relative)],
    value: fromJson(value),
  }))
}

function refuseNested(paths: readonly Path[]): void {
  const texts = paths.map((path) => `${formatPath(path)}/`).sort()
  for (const [index, text] of texts.entries()) {
    const next = texts[index + 1]
    if (next?.startsWith(text)) {
      throw new BadValue(text, `${next} cannot be written with it in one update`)
    }
  }
}
