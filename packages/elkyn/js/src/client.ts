/** A client of a served tree: reads, writes that survive a lost connection, and live values. */

import { placesOf } from './edits.ts'
import { BadValue, Closed, Offline, type Refused } from './errors.ts'
import { AuthorizedStream, type TokenSource, tokenOf } from './authorizedStream.ts'
import type { QueueStorage } from './storedWrites.ts'
import { LocalView } from './localView.ts'
import { formatPath, parsePath, type Path, refuseNested } from './paths.ts'
import { PushIds } from './pushIds.ts'
import { type QueuedWrite, type QueueListener, WriteQueue } from './queue.ts'
import { randomName } from './random.ts'
import { socketStreams } from './socket.ts'
import {
  addressOf,
  authorization,
  type OpenStream,
  openStream,
  refusal,
  serverBase,
} from './stream.ts'
import { type Callback, checkListener, type EventType } from './tree.ts'
import { type Json, prepare, type Value } from './values.ts'

export interface ClientOptions {
  /** Returns the token of each request and stream, so that it may change; empty for none. */
  token?: TokenSource
  /** The namespace of the tree on the server. */
  namespace?: string | undefined
  /**
   * Opens the streams of listeners: `socketStreams()` (one WebSocket, where supported),
   * `openStream` (an event stream each, resumed by position), `sharedStreams` (a SharedWorker).
   */
  streams?: OpenStream | undefined
  /** Stores pending writes across restarts while the server is unreachable: `localStorage`. */
  storage?: QueueStorage | undefined
  /** Called when the server refuses a listener, which then receives no more events. */
  onRefused?: ((path: string, error: Refused) => void) | undefined
}

/** Selects children of a path; bounds apply to the requested order. */
export interface QueryOptions {
  orderBy: '$key' | '$value' | '$priority' | (string & {})
  startAt?: Json
  startAfter?: Json
  endAt?: Json
  endBefore?: Json
  equalTo?: Json
  limitToFirst?: number
  limitToLast?: number
}

const TRANSACTION_TRIES = 25
const REQUEST_MS_MAX = 90_000

/** A path with listeners. */
interface Listened {
  live: LocalView
  users: number
  stream: AuthorizedStream
}

export class ElkynClient {
  private readonly base: string
  private readonly queue: WriteQueue
  private readonly streams: OpenStream
  private readonly listened = new Map<string, Listened>()
  private readonly pushIds = new PushIds()
  private isClosed = false

  /**
   * @param watcher is notified of writes instead of this client's listeners: for a replica
   */
  constructor(
    url: string,
    private readonly options: ClientOptions = {},
    watcher: QueueListener | null = null,
  ) {
    this.base = serverBase(url)
    this.streams =
      options.streams ?? (typeof WebSocket === 'undefined' ? openStream : socketStreams())
    this.queue = new WriteQueue(
      (write, signal) => this.carry(write, signal),
      watcher ?? {
        added: (write) => this.lives.forEach((live) => live.add(write)),
        done: (write, position) => this.lives.forEach((live) => live.done(write, position)),
        failed: (write) => this.lives.forEach((live) => live.forget(write)),
      },
      options.storage ?? null,
      `elkyn-writes ${this.base} ${options.namespace ?? ''}`,
    )
  }

  /** Read the value at `path` from the server. */
  async get(path: string): Promise<Json> {
    return (await this.request('GET', parsePath(path))).json() as Promise<Json>
  }

  /** Read the children of `path` that a query selects, by key. */
  async query(path: string, options: QueryOptions): Promise<Json> {
    const query: Record<string, string> = {}
    for (const [name, value] of Object.entries(options)) {
      if (value !== undefined) query[name] = JSON.stringify(value)
    }
    return (await this.request('GET', parsePath(path), { query })).json() as Promise<Json>
  }

  /** Replace the value at `path`; settles when the server has it, which may be much later. */
  async set(path: string, value: Value): Promise<void> {
    await this.write('PUT', parsePath(path), value)
  }

  /** Replace several children of `path` in one atomic write; keys may be paths. */
  async update(path: string, values: { readonly [key: string]: Value }): Promise<void> {
    await this.write('PATCH', parsePath(path), values)
  }

  /** Add `value` under a new key that sorts after all earlier ones; returns the key at once. */
  push(path: string, value: Value): { key: string; done: Promise<void> } {
    const key = this.pushIds.next()
    return { key, done: this.set(`${path}/${key}`, value) }
  }

  /** Delete the value at `path`, with all its children. */
  async delete(path: string): Promise<void> {
    await this.write('DELETE', parsePath(path), null)
  }

  /** Replace a value by `change(value)`, with retries on conflicts; undefined aborts. */
  async transaction(path: string, change: (value: Json) => Value): Promise<Json> {
    const keys = parsePath(path)
    let answer = await this.request('GET', keys, { headers: { 'x-firebase-etag': 'true' } })
    for (let tries = 0; tries < TRANSACTION_TRIES; tries += 1) {
      const value = (await answer.json()) as Json
      const next = change(value)
      if (next === undefined) return value
      check('PUT', keys, next)
      const headers = { 'if-match': answer.headers.get('etag') ?? '' }
      answer = await this.request('PUT', keys, { headers, body: next as Json, may: [412] })
      if (answer.ok) return (await answer.json()) as Json
    }
    throw new Offline(`${path} changed during all ${TRANSACTION_TRIES} tries of the transaction`)
  }

  /** Call `callback` for the value at `path` and each change; returns the unsubscribe function. */
  on(path: string, type: EventType, callback: Callback): () => void {
    if (this.isClosed) throw new Closed('the client')
    checkListener(type, callback)
    const keys = parsePath(path)
    const name = formatPath(keys)
    const entry = this.listened.get(name) ?? this.listen(name, keys)
    entry.users += 1
    const stop = entry.live.on(type, callback)
    let stopped = false
    return () => {
      if (stopped) return
      stopped = true
      stop()
      entry.users -= 1
      if (entry.users === 0) this.forget(name, entry)
    }
  }

  /** The number of writes that wait for the server. */
  get pendingWrites(): number {
    return this.queue.pending.length
  }

  /** The user has signed in or out: listeners continue with the current token. */
  async renewToken(): Promise<void> {
    this.queue.retry()
    await Promise.all([...this.listened.values()].map(({ stream }) => stream.renew()))
  }

  /** End streams; pending writes are rejected (and stay stored, if there is a storage). */
  close(): void {
    this.isClosed = true
    for (const [name, entry] of this.listened) this.forget(name, entry)
    this.queue.close()
  }

  private get lives(): LocalView[] {
    return [...this.listened.values()].map(({ live }) => live)
  }

  private listen(name: string, path: Path): Listened {
    const live = new LocalView(path)
    for (const write of this.queue.pending) live.add(write)
    const place = { base: this.base, path, namespace: this.options.namespace ?? null }
    const stream = new AuthorizedStream(
      this.streams,
      this.options.token,
      () => ({ ...place, lastEventId: null }),
      {
        event: (event) => live.apply(event),
        connection: ({ state }) => state === 'online' && this.queue.retry(),
        refused: (error) => this.refused(name, entry, error),
      },
    )
    const entry: Listened = { live, users: 0, stream }
    this.listened.set(name, entry)
    return entry
  }

  private forget(name: string, { live, stream }: Listened): void {
    stream.close()
    live.close()
    if (this.listened.get(name)?.live === live) this.listened.delete(name)
  }

  private refused(name: string, entry: Listened, error: Refused): void {
    this.forget(name, entry)
    if (this.options.onRefused) this.options.onRefused(name, error)
    else console.warn(`listening to ${name} was refused: ${error.message}`) // eslint-disable-line no-console -- there is no other place to report it
  }

  private write(method: QueuedWrite['method'], path: Path, value: Value): Promise<void> {
    check(method, path, value)
    const body = JSON.parse(JSON.stringify(value ?? null)) as Json
    return this.queue.add({ key: randomName(), method, path, body })
  }

  /** Send a write; returns its position in the server's log. */
  private async carry(write: QueuedWrite, signal: AbortSignal): Promise<number | null> {
    const body = write.method === 'DELETE' ? undefined : write.body
    const headers = { 'idempotency-key': write.key }
    const query = { print: 'silent' }
    const answer = await this.request(write.method, write.path, { body, headers, query, signal })
    const position = answer.headers.get('x-elkyn-position')
    return position === null ? null : Number(position)
  }

  private async request(
    method: string,
    path: Path,
    options: {
      query?: Readonly<Record<string, string>>
      headers?: Readonly<Record<string, string>>
      body?: Json | undefined
      may?: readonly number[]
      signal?: AbortSignal
    } = {},
  ): Promise<Response> {
    if (this.isClosed) throw new Closed('the client')
    const url = new URL(
      addressOf({ base: this.base, path, namespace: this.options.namespace ?? null }),
    )
    for (const [name, value] of Object.entries(options.query ?? {}))
      url.searchParams.set(name, value)
    const ends = [AbortSignal.timeout(REQUEST_MS_MAX), ...(options.signal ? [options.signal] : [])]
    const init: RequestInit = { method, signal: AbortSignal.any(ends) }
    if (options.body !== undefined) init.body = JSON.stringify(options.body)
    let answer: Response
    try {
      init.headers = { ...authorization(await tokenOf(this.options.token)), ...options.headers }
      answer = await fetch(url, init)
    } catch (error) {
      throw new Offline(`${this.base} cannot be reached`, { cause: error })
    }
    if (answer.ok || options.may?.includes(answer.status)) return answer
    throw await refusal(answer)
  }
}

/** Refuse an invalid write before it is queued, as the server would. */
function check(method: string, path: Path, value: Value): void {
  const anything = { now: 0, current: () => null, priorities: true }
  if (method !== 'PATCH') {
    prepare(value, path, anything)
    return
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new BadValue(formatPath(path), 'an update needs an object of children')
  }
  const places = placesOf(path, value as { readonly [key: string]: Value })
  refuseNested(places.map(([place]) => place))
  for (const [place, child] of places) prepare(child, place, anything)
}
