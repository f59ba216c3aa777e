/** Values of a server's tree that follow its changes, for display: without writes. */

import { applyEvent } from './edits.ts'
import type { Refused } from './errors.ts'
import { AuthorizedStream, type TokenSource } from './authorizedStream.ts'
import { formatPath, parsePath, type Path } from './paths.ts'
import { type Connection, type OpenStream, openStream, serverBase } from './stream.ts'
import { type Json, present, type Stored, type StoredMap } from './values.ts'

export interface LiveOptions {
  /** The token, or a function that returns one; without it a browser sends its cookies. */
  token?: TokenSource
  /** The namespace of the tree on the server. */
  namespace?: string | undefined
  /** Opens the streams: one event stream for each path by default, or `sharedStreams`. */
  streams?: OpenStream | undefined
}

/** The state of a path. It is not changed in place: a change makes a new object. */
export interface LiveValue {
  /**
   * The value; null when there is none, or before the first answer of the server. Parts that a
   * change does not affect remain the same objects, so do not modify them.
   */
  readonly value: Json
  /** Whether the server has sent the value. */
  readonly isKnown: boolean
  readonly connection: LiveConnection
}

/** A connection, or the server's refusal; `retryAtMs` is the time of the next attempt. */
export type LiveConnection = Connection | { state: 'refused'; error: Refused; retryAtMs: number }

/** A refusal ends when the page gets a cookie, for example in another tab, which is not notified. */
const REFUSED_RETRY_MS = 10_000

const START: LiveValue = { value: null, isKnown: false, connection: { state: 'connecting' } }

export class LiveValues {
  private readonly paths = new Map<string, LivePath>()

  /** @param url of the server; a relative one, such as `/`, is of the page's origin */
  constructor(
    private readonly url: string,
    private readonly options: LiveOptions = {},
  ) {}

  /** The current state of `path`: the same object until it changes. */
  get(path: string): LiveValue {
    return this.paths.get(formatPath(parsePath(path)))?.current ?? START
  }

  /**
   * Call `listener` after each change of `path`; returns the unsubscribe function.
   *
   * The stream of a path is open while it has subscribers. Afterwards `get` returns its last state,
   * which is up to date again soon after the next `subscribe`.
   */
  subscribe(path: string, listener: () => void): () => void {
    const keys = parsePath(path)
    const name = formatPath(keys)
    const live = this.paths.get(name) ?? new LivePath(this.url, keys, this.options)
    this.paths.set(name, live)
    return live.subscribe(listener)
  }

  /** Reconnect all lost and refused streams now. */
  retry(): void {
    for (const live of this.paths.values()) live.retry()
  }

  /** The user has signed in or out: continue with the current token. */
  async renewToken(): Promise<void> {
    await Promise.all([...this.paths.values()].map((live) => live.renewToken()))
  }
}

class LivePath {
  current = START
  private stored: Stored = null
  private stream: AuthorizedStream | null = null
  private timer: ReturnType<typeof setTimeout> | undefined
  private readonly listeners = new Set<() => void>()
  /** Presented parts, so that an event costs as much as it changes. */
  private readonly presented = new WeakMap<StoredMap, Json>()

  constructor(
    private readonly url: string,
    private readonly path: Path,
    private readonly options: LiveOptions,
  ) {}

  subscribe(listener: () => void): () => void {
    const own = () => listener() // so that a listener may subscribe twice
    this.listeners.add(own)
    if (!this.isOpen) this.open()
    return () => {
      if (!this.listeners.delete(own) || this.listeners.size > 0) return
      this.close()
      this.current = { ...this.current, connection: START.connection }
    }
  }

  retry(): void {
    if (this.current.connection.state === 'refused' && this.isOpen) this.open()
    else this.stream?.retry()
  }

  async renewToken(): Promise<void> {
    if (this.stream) await this.stream.renew()
    else this.retry()
  }

  /** Whether there is a stream, or a timer that opens one. */
  private get isOpen(): boolean {
    return this.stream !== null || this.timer !== undefined
  }

  private open(): void {
    this.close()
    const { namespace = null, streams = openStream, token } = this.options
    const request = { base: serverBase(this.url), path: this.path, namespace, lastEventId: null }
    this.stream = new AuthorizedStream(streams, token, () => request, {
      event: (event) => {
        this.stored = applyEvent(this.stored, [], event)
        this.change({ value: present(this.stored, this.presented), isKnown: true })
      },
      connection: (connection) => this.change({ connection }),
      refused: (error) => this.refuse(error),
    })
  }

  private refuse(error: Refused): void {
    this.stream = null
    this.timer = setTimeout(() => this.open(), REFUSED_RETRY_MS)
    const retryAtMs = Date.now() + REFUSED_RETRY_MS
    this.change({ connection: { state: 'refused', error, retryAtMs } })
  }

  private close(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.stream?.close()
    this.stream = null
  }

  private change(part: Partial<LiveValue>): void {
    this.current = { ...this.current, ...part }
    for (const listener of [...this.listeners]) listener()
  }
}
