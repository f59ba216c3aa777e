/**
 * One stream for a whole browser: pages ask a SharedWorker, which opens each stream once.
 *
 * A page that joins gets the value as the worker knows it, as a fresh `put "/"`; all further events
 * reach every page in the same order.
 */

import { Refused } from './errors'
import { parsePath } from './paths'
import { type OpenStream, openStream, type StreamEvent, type StreamRequest } from './stream'
import { fromJson, type Json, present, setAt, type Stored } from './values'

type ToWorker =
  | { kind: 'open'; id: number; request: StreamRequest }
  | { kind: 'close'; id: number }
  | { kind: 'bye' }

type FromWorker =
  | { kind: 'event'; id: number; event: StreamEvent }
  | { kind: 'online'; id: number; live: boolean }
  | { kind: 'refused'; id: number; status: number; message: string }

/** What this module needs of a MessagePort. */
export interface Port {
  postMessage(message: unknown): void
  addEventListener(type: 'message', listener: (event: MessageEvent) => void): void
  start(): void
}

/** Streams by way of a worker that runs `serveStreams` for each port that connects. */
export function sharedStreams(port: Port): OpenStream {
  const listeners = new Map<number, Parameters<OpenStream>[1]>()
  let last = 0
  port.addEventListener('message', ({ data }: MessageEvent<FromWorker>) => {
    const listener = listeners.get(data.id)
    if (data.kind === 'event') listener?.event(data.event)
    else if (data.kind === 'online') listener?.online(data.live)
    else listener?.refused(new Refused(data.status, data.message))
  })
  port.start()
  const post = (message: ToWorker) => port.postMessage(message)
  globalThis.addEventListener?.('pagehide', () => post({ kind: 'bye' }))
  return (request, listener) => {
    const id = (last += 1)
    listeners.set(id, listener)
    post({ kind: 'open', id, request })
    return () => {
      listeners.delete(id)
      post({ kind: 'close', id })
    }
  }
}

interface Member {
  port: Port
  id: number
}

/** One stream that is open, and the pages that follow it. */
class Source {
  readonly members = new Set<Member>()
  private state: Stored = null
  private known = false
  private live = false
  private lastId: string | null = null
  private readonly close: () => void

  constructor(request: StreamRequest, open: OpenStream, ended: () => void) {
    this.close = open(request, {
      event: (event) => this.take(event),
      online: (live) => {
        this.live = live
        this.tell((id) => ({ kind: 'online', id, live }))
      },
      refused: ({ status, message }) => {
        this.tell((id) => ({ kind: 'refused', id, status, message }))
        ended()
      },
    })
  }

  join(member: Member): void {
    this.members.add(member)
    if (!this.known) return
    const event: StreamEvent = {
      type: 'put',
      path: '/',
      data: present(this.state),
      id: this.lastId,
    }
    member.port.postMessage({ kind: 'event', id: member.id, event } satisfies FromWorker)
    member.port.postMessage({ kind: 'online', id: member.id, live: this.live } satisfies FromWorker)
  }

  /** Says whether nobody is left. */
  leave(member: Member): boolean {
    this.members.delete(member)
    if (this.members.size === 0) this.close()
    return this.members.size === 0
  }

  private take(event: StreamEvent): void {
    const base = parsePath(event.path)
    const places: [string, Json][] =
      event.type === 'put'
        ? [['', event.data]]
        : Object.entries(event.data as { [key: string]: Json })
    for (const [relative, value] of places) {
      this.state = setAt(this.state, [...base, ...parsePath(relative)], fromJson(value))
    }
    this.known = true
    this.lastId = event.id ?? this.lastId
    this.tell((id) => ({ kind: 'event', id, event }))
  }

  private tell(message: (id: number) => FromWorker): void {
    for (const { port, id } of this.members) port.postMessage(message(id))
  }
}

/** Returns what a SharedWorker does with each port that connects. */
export function serveStreams(open: OpenStream = openStream): (port: Port) => void {
  const sources = new Map<string, Source>()
  return (port) => {
    const joined = new Map<number, { name: string; member: Member }>()
    const leave = (id: number) => {
      const entry = joined.get(id)
      joined.delete(id)
      if (entry && sources.get(entry.name)?.leave(entry.member)) sources.delete(entry.name)
    }
    port.addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
      if (data.kind === 'bye') {
        for (const id of [...joined.keys()]) leave(id)
      } else if (data.kind === 'close') {
        leave(data.id)
      } else {
        const name = JSON.stringify([data.request.url, data.request.headers])
        const source =
          sources.get(name) ?? new Source(data.request, open, () => sources.delete(name))
        sources.set(name, source)
        const member = { port, id: data.id }
        joined.set(data.id, { name, member })
        source.join(member)
      }
    })
    port.start()
  }
}
