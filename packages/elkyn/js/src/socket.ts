/**
 * Streams over one WebSocket for each server and token, for any number of paths.
 *
 * The socket listens only to the topmost paths; events of paths below are derived from theirs. After
 * a lost connection the server sends the missed events, or the whole value if its log is too short.
 */

import { Backoff } from './backoff.ts'
import { applyEvent, eventChanges } from './edits.ts'
import { Refused } from './errors.ts'
import { formatPath, isWithin, parsePath, type Path } from './paths.ts'
import { isDelivered, type Push, SocketLink, type Delivered } from './socketLink.ts'
import {
  type Connection,
  type OpenStream,
  type StreamEvent,
  type StreamHandle,
  type StreamListener,
  type StreamRequest,
  wholeValue,
} from './stream.ts'
import { getAt, type Json, present, setAt, type Stored } from './values.ts'

/** Returns streams that share a WebSocket for each server, namespace and token. */
export function socketStreams(): OpenStream {
  const hubs = new Map<string, Hub>()
  return (request, listener) => {
    const name = JSON.stringify([request.base, request.namespace, request.token])
    const hub = hubs.get(name) ?? new Hub(request, () => hubs.delete(name))
    hubs.set(name, hub)
    return hub.listen(request.path, listener)
  }
}

/** A path with listeners. */
interface WatchedPath {
  path: Path
  listeners: Set<StreamListener>
  /** Whether the socket listens to it; else it listens to a path above it, or is not connected. */
  asked: boolean
  /** Whether the server has acknowledged that: `delivered` positions count for it from then on. */
  isDelivered: boolean
  /** Whether the state contains its value: patches before that have nothing to apply to. */
  known: boolean
  /** The position to resume from; null for the whole value. */
  seen: Delivered | null
}

class Hub {
  private readonly watched = new Map<string, WatchedPath>()
  private link: SocketLink
  /** The values of all watched paths that are known, in one tree; null elsewhere. */
  private state: Stored = null
  private connection: Connection = { state: 'connecting' }
  private readonly over = new AbortController()
  private readonly backoff = new Backoff(this.over.signal)

  constructor(
    private readonly request: StreamRequest,
    private readonly unused: () => void,
  ) {
    this.link = this.connect()
  }

  listen(path: Path, listener: StreamListener): StreamHandle {
    const name = formatPath(path)
    const entry = this.watched.get(name) ?? this.watch(name, path)
    entry.listeners.add(listener)
    // A new path of an open socket hears of no change of the connection before the next one.
    if (entry.known || this.isOnline) {
      queueMicrotask(() => {
        if (!entry.listeners.has(listener)) return
        if (entry.known) listener.event(wholeValue(getAt(this.state, path)))
        listener.connection(this.connection)
      })
    }
    return {
      close: () => {
        if (entry.listeners.delete(listener) && entry.listeners.size === 0) this.forget(entry)
      },
      retry: () => this.backoff.retry(),
    }
  }

  private get isOnline(): boolean {
    return this.connection.state === 'online'
  }

  private watch(name: string, path: Path): WatchedPath {
    const above = this.above(path)
    const entry = {
      path,
      listeners: new Set<StreamListener>(),
      asked: false,
      isDelivered: false,
      known: !!above?.known,
      seen: null,
    }
    this.watched.set(name, entry)
    this.arrange()
    return entry
  }

  private above(path: Path): WatchedPath | undefined {
    return [...this.watched.values()].find(
      (other) => other.path.length < path.length && isWithin(path, other.path),
    )
  }

  private forget(entry: WatchedPath): void {
    const name = formatPath(entry.path)
    if (this.watched.get(name) !== entry) return
    this.watched.delete(name)
    if (this.watched.size === 0) {
      this.over.abort()
      this.link.close()
      this.unused()
      return
    }
    // Without a path above it nothing updates this part of the state any more.
    if (!this.above(entry.path)) this.lose(entry.path)
    if (entry.asked && this.isOnline) this.unlisten(entry)
    this.arrange()
  }

  /** Mark the values below `path` as unknown until the socket listens to them again. */
  private lose(path: Path): void {
    this.state = setAt(this.state, path, null)
    for (const other of this.watched.values()) {
      if (isWithin(other.path, path)) Object.assign(other, { known: false, seen: null })
    }
  }

  /** Listen to the topmost paths, and to no others. */
  private arrange(): void {
    if (!this.isOnline) return
    const entries = [...this.watched.values()]
    const covered = new Set(entries.filter(({ path }) => this.above(path)))
    for (const entry of entries) if (entry.asked && covered.has(entry)) this.unlisten(entry)
    for (const entry of entries) if (!entry.asked && !covered.has(entry)) this.ask(entry)
  }

  private ask(entry: WatchedPath): void {
    entry.asked = true
    entry.isDelivered = false
    const { link } = this
    const seen = (entry.known && entry.seen) || { i: '', m: '' }
    link.send('q', { p: formatPath(entry.path), h: '', ...seen }, (error, delivered) => {
      if (link !== this.link) return // the reply of a connection that was replaced
      if (error !== null) this.refuse(entry, error)
      else if (entry.asked && isDelivered(delivered))
        Object.assign(entry, { isDelivered: true, seen: delivered })
    })
  }

  private unlisten(entry: WatchedPath): void {
    entry.asked = false
    entry.seen = null
    this.link.send('n', { p: formatPath(entry.path) }, () => undefined)
  }

  private refuse(entry: WatchedPath, error: Refused): void {
    const name = formatPath(entry.path)
    if (this.watched.get(name) !== entry || !entry.asked) return
    entry.asked = false
    const listeners = [...entry.listeners]
    entry.listeners.clear()
    this.forget(entry)
    for (const listener of listeners) listener.refused(error)
  }

  private connect(): SocketLink {
    return new SocketLink(this.request, {
      opened: () => {
        this.backoff.reset()
        for (const entry of this.watched.values()) entry.asked = false
        this.enter({ state: 'online' })
        this.arrange()
      },
      pushed: (push) => this.receive(push),
      delivered: (until) => {
        for (const entry of this.watched.values())
          if (entry.isDelivered && entry.asked) entry.seen = until
      },
      ended: (refused) => this.ended(refused),
    })
  }

  private ended(refused: Refused | null): void {
    if (refused) {
      this.connection = { state: 'connecting' }
      this.unused()
      const entries = [...this.watched.values()]
      this.watched.clear()
      for (const { listeners } of entries) {
        for (const listener of listeners) listener.refused(refused)
      }
      return
    }
    const delayMs = this.backoff.nextMs()
    this.enter({ state: 'offline', retryAtMs: Date.now() + delayMs })
    void this.backoff.wait(delayMs).then(() => {
      if (!this.over.signal.aborted) this.link = this.connect()
    })
  }

  private enter(connection: Connection): void {
    this.connection = connection
    for (const { listeners } of [...this.watched.values()])
      for (const listener of [...listeners]) listener.connection(connection)
  }

  private receive({ action, path, data, id }: Push): void {
    const at = parsePath(path)
    if (action === 'c') {
      const entry = this.watched.get(formatPath(at))
      if (entry) this.refuse(entry, revoked())
      return
    }
    const entries = [...this.watched.values()]
    if (!entries.some((entry) => isWithin(at, entry.path))) return // an event of a path that is no longer watched
    const event: StreamEvent = { type: action === 'm' ? 'patch' : 'put', path: '/', data, id: null }
    this.state = applyEvent(this.state, at, event)
    const asked = entries.find((entry) => entry.asked && isWithin(at, entry.path))
    if (asked?.seen && id !== null) asked.seen = { ...asked.seen, i: id }
    for (const entry of entries) this.pass(entry, at, event)
  }

  /** Deliver an event at `at` to the listeners of a path, relative to that path. */
  private pass(entry: WatchedPath, at: Path, event: StreamEvent): void {
    const delivered = isWithin(at, entry.path)
      ? { ...event, path: formatPath(at.slice(entry.path.length)) }
      : this.below(entry.path, at, event)
    if (!delivered) return
    const isWhole = delivered.type === 'put' && delivered.path === '/'
    if (!entry.known && !isWhole) return
    entry.known = true
    for (const listener of [...entry.listeners]) listener.event(delivered)
  }

  /** The part of an event above `path` that concerns it. */
  private below(path: Path, at: Path, event: StreamEvent): StreamEvent | null {
    if (!isWithin(path, at)) return null
    if (event.type === 'put') return wholeValue(getAt(this.state, path))
    const inside: { [key: string]: Json } = {}
    for (const change of eventChanges(at, event)) {
      if (isWithin(path, change.path)) return wholeValue(getAt(this.state, path))
      if (isWithin(change.path, path)) {
        inside[change.path.slice(path.length).join('/')] = present(change.value)
      }
    }
    return Object.keys(inside).length ? { type: 'patch', path: '/', data: inside, id: null } : null
  }
}

function revoked(): Refused {
  return new Refused(401, 'Permission denied')
}
