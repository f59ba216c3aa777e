/** A client of a served tree: reads, writes that survive a lost connection, and live values. */

import { BadValue, Closed, Offline, type Refused } from './errors'
import { describe, Live } from './live'
import { formatPath, parsePath, type Path } from './paths'
import { PushIds } from './pushIds'
import { type QueuedWrite, type QueueStorage, WriteQueue } from './queue'
import { type OpenStream, openStream, refusal } from './stream'
import type { Callback, EventType } from './tree'
import { type Json, prepare, type Value } from './values'

export interface ClientOptions {
  /** Called for each request, so that a token may change; empty for none. */
  token?: string | (() => string)
  /** Which tree of the server. */
  namespace?: string
  /** Opens event streams: `sharedStreams(worker)` gives one connection to a whole browser. */
  streams?: OpenStream
  /** Keeps writes over restarts while the server cannot be reached: `localStorage`. */
  storage?: QueueStorage
  /** Hears of listens that the server refuses. */
  onRefused?: (path: string, error: Refused) => void
}

/** What to read of the children of a path; bounds count in the order asked for. */
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

export class ElkynClient {
  private readonly base: string
  private readonly queue: WriteQueue
  private readonly lives = new Map<string, { live: Live; close(): void; users: number }>()
  private readonly pushIds = new PushIds()
  private readonly retry = () => this.queue.retry()
  private isClosed = false

  constructor(
    url: string,
    private readonly options: ClientOptions = {},
  ) {
    this.base = url.replace(/\/+$/, '')
    this.queue = new WriteQueue(
      (write, signal) => this.carry(write, signal),
      () => this.shown(),
      options.storage ?? null,
      `elkyn-writes ${this.base} ${options.namespace ?? ''}`,
    )
    globalThis.addEventListener?.('online', this.retry)
  }

  /** The value at `path` as the server has it. */
  async get(path: string): Promise<Json> {
    return (await this.request('GET', parsePath(path))).json() as Promise<Json>
  }

  /** The children of `path` that a query asks for, by key. */
  async query(path: string, options: QueryOptions): Promise<Json> {
    const query: Record<string, string> = {}
    for (const [name, value] of Object.entries(options)) {
      if (value !== undefined) query[name] = JSON.stringify(value)
    }
    return (await this.request('GET', parsePath(path), { query })).json() as Promise<Json>
  }

  /** Replace what is at `path`; settles when the server has it, which may be much later. */
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

  /** Remove what is at `path` and below. */
  async delete(path: string): Promise<void> {
    await this.write('DELETE', parsePath(path), null)
  }

  /** Replace a value by what `change` makes of it, whoever else writes; undefined gives up. */
  async transaction(path: string, change: (value: Json) => Value): Promise<Json> {
    const keys = parsePath(path)
    let answer = await this.request('GET', keys, { headers: { 'x-firebase-etag': 'true' } })
    for (let tries = 0; tries < TRANSACTION_TRIES; tries += 1) {
      const value = (await answer.json()) as Json
      const next = change(value)
      if (next === undefined) return value
      const headers = { 'if-match': answer.headers.get('etag') ?? '' }
      answer = await this.request('PUT', keys, { headers, body: next as Json, may: [412] })
      if (answer.ok) return (await answer.json()) as Json
    }
    throw new Offline(`${path} changed ${TRANSACTION_TRIES} times while it was to be written`)
  }

  /** Call `callback` for what is at `path` and for each change; returns how to stop. */
  on(path: string, type: EventType, callback: Callback): () => void {
    if (this.isClosed) throw new Closed('the client')
    const keys = parsePath(path)
    const name = formatPath(keys)
    const entry = this.lives.get(name) ?? this.listen(name, keys)
    entry.users += 1
    const stop = entry.live.on(type, callback)
    let stopped = false
    return () => {
      if (stopped) return
      stopped = true
      stop()
      entry.users -= 1
      if (entry.users === 0) {
        entry.close()
        this.lives.delete(name)
      }
    }
  }

  /** How many writes wait for the server. */
  get pendingWrites(): number {
    return this.queue.pending.length
  }

  /** End streams; writes that wait are rejected (and kept, when there is a storage). */
  close(): void {
    this.isClosed = true
    globalThis.removeEventListener?.('online', this.retry)
    for (const { close } of this.lives.values()) close()
    this.lives.clear()
    this.queue.close()
  }

  private listen(name: string, keys: Path) {
    const live = new Live(keys)
    const open = this.options.streams ?? openStream
    const request = { url: this.url(keys), headers: this.headers(), lastEventId: null }
    const close = open(request, {
      event: (event) => live.take(event, this.queue.pending),
      online: (isOnline) => isOnline && this.queue.retry(),
      refused: (error) => {
        if (this.options.onRefused) this.options.onRefused(name, error)
        else console.warn(describe(keys, error)) // eslint-disable-line no-console -- nobody else hears it
      },
    })
    const entry = { live, close, users: 0 }
    this.lives.set(name, entry)
    return entry
  }

  private write(method: QueuedWrite['method'], path: Path, value: Value): Promise<Json> {
    try {
      check(method, path, value)
    } catch (error) {
      return Promise.reject(error as Error)
    }
    const body = JSON.parse(JSON.stringify(value ?? null)) as Json
    return this.queue.add({ key: crypto.randomUUID(), method, path, body })
  }

  private async carry(write: QueuedWrite, signal: AbortSignal): Promise<Json> {
    const body = write.method === 'DELETE' ? undefined : write.body
    const headers = { 'idempotency-key': write.key }
    const answer = await this.request(write.method, write.path, { body, headers, signal })
    return (await answer.json()) as Json
  }

  private shown(): void {
    for (const { live } of this.lives?.values() ?? []) live.show(this.queue.pending)
  }

  private url(path: Path, query: Readonly<Record<string, string>> = {}): string {
    const url = new URL(`${this.base}/${path.map(encodeURIComponent).join('/')}.json`)
    if (this.options.namespace) url.searchParams.set('ns', this.options.namespace)
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
    return url.href
  }

  private headers(): Record<string, string> {
    const { token } = this.options
    const text = typeof token === 'function' ? token() : token
    return text ? { authorization: `Bearer ${text}` } : {}
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
    const init: RequestInit = { method, headers: { ...this.headers(), ...options.headers } }
    if (options.body !== undefined) init.body = JSON.stringify(options.body)
    if (options.signal) init.signal = options.signal
    let answer: Response
    try {
      answer = await fetch(this.url(path, options.query), init)
    } catch (error) {
      throw new Offline(`${this.base} cannot be reached`, { cause: error })
    }
    if (answer.ok || options.may?.includes(answer.status)) return answer
    throw await refusal(answer)
  }
}

/** Refuse here what the server would refuse, before it waits in a queue. */
function check(method: string, path: Path, value: Value): void {
  const anything = { now: 0, current: () => null }
  if (method !== 'PATCH') {
    prepare(value, path, anything)
    return
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new BadValue(formatPath(path), 'an update takes an object of children')
  }
  for (const [relative, child] of Object.entries(value)) {
    const inner = [...path, ...parsePath(relative)]
    prepare(child as Value, inner, anything)
  }
}
