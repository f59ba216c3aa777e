/** One stream for all listeners to the same path: browsers allow six connections to a server. */

import { applyEvent } from './edits.ts'
import type { Refused } from './errors.ts'
import {
  type Connection,
  type OpenStream,
  type StreamEvent,
  type StreamHandle,
  type StreamListener,
  type StreamRequest,
  wholeValue,
} from './stream.ts'
import type { Stored } from './values.ts'

/** Returns streams of which those with the same request share one stream of `open`. */
export function multicast(open: OpenStream): OpenStream {
  const shared = new Map<string, SharedStream>()
  return (request, listener) => {
    // A listener that resumes does not get the whole value, which others would need.
    if (request.lastEventId !== null) return open(request, listener)
    const { base, namespace, path, token } = request
    const name = JSON.stringify([base, namespace, path, token])
    const known = shared.get(name)
    if (known) return known.add(listener)
    const stream: SharedStream = new SharedStream(open, request, () => {
      if (shared.get(name) === stream) shared.delete(name)
    })
    shared.set(name, stream)
    return stream.add(listener)
  }
}

class SharedStream {
  private readonly listeners = new Set<StreamListener>()
  /** Listeners that were added just now: they get the current value before any event. */
  private readonly added = new Set<StreamListener>()
  private readonly stream: StreamHandle
  private connection: Connection = { state: 'connecting' }
  private value: Stored = null
  private isKnown = false

  /** @param ended is called when there are no more listeners, or the server refuses the stream */
  constructor(
    open: OpenStream,
    request: StreamRequest,
    private readonly ended: () => void,
  ) {
    this.stream = open(request, {
      event: (event) => this.receive(event),
      connection: (connection) => {
        this.connection = connection
        for (const listener of [...this.listeners]) listener.connection(connection)
      },
      refused: (error) => this.refuse(error),
    })
  }

  add(listener: StreamListener): StreamHandle {
    this.added.add(listener)
    queueMicrotask(() => this.begin(listener))
    return { close: () => this.remove(listener), retry: () => this.stream.retry() }
  }

  private begin(listener: StreamListener): void {
    if (!this.added.delete(listener)) return
    this.listeners.add(listener)
    if (this.connection.state !== 'connecting') listener.connection(this.connection)
    if (this.isKnown && this.listeners.has(listener)) listener.event(wholeValue(this.value))
  }

  private remove(listener: StreamListener): void {
    const isRemoved = this.added.delete(listener) || this.listeners.delete(listener)
    if (!isRemoved || this.added.size + this.listeners.size > 0) return
    this.stream.close()
    this.ended()
  }

  private receive(event: StreamEvent): void {
    this.value = applyEvent(this.value, [], event)
    this.isKnown = true
    for (const listener of [...this.listeners]) listener.event(event)
  }

  private refuse(error: Refused): void {
    this.ended()
    const all = [...this.listeners, ...this.added]
    this.listeners.clear()
    this.added.clear()
    for (const listener of all) listener.refused(error)
  }
}
