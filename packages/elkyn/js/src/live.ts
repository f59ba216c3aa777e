/** What a path looks like here: the server's value, and over it the writes still on their way. */

import type { Refused } from './errors'
import { formatPath, parsePath, type Path } from './paths'
import type { QueuedWrite } from './queue'
import type { StreamEvent } from './stream'
import { type Callback, type EventType, Tree } from './tree'
import { fromJson, getAt, type Json, prepare, setAt, type Stored, type Value } from './values'

export class Live {
  private server: Stored = null
  private known = false
  private readonly tree = new Tree()
  private readonly waiting = new Set<() => void>()

  constructor(readonly path: Path) {}

  /** Whether the server's value is known. */
  get ready(): boolean {
    return this.known
  }

  /** The value as it is shown. */
  get value(): Stored {
    return this.tree.get([])
  }

  /** Take an event of the stream of this path. */
  take(event: StreamEvent, pending: readonly QueuedWrite[]): void {
    const base = parsePath(event.path)
    if (event.type === 'put') {
      this.server = setAt(this.server, base, fromJson(event.data))
    } else {
      for (const [relative, value] of Object.entries(event.data as { [key: string]: Json })) {
        this.server = setAt(this.server, [...base, ...parsePath(relative)], fromJson(value))
      }
    }
    this.known = true
    this.show(pending)
    for (const begin of [...this.waiting]) begin()
    this.waiting.clear()
  }

  /** Show the server's value with the pending writes over it. */
  show(pending: readonly QueuedWrite[]): void {
    if (!this.known) return
    let value = this.server
    for (const write of pending) value = overlaid(value, this.path, write)
    this.tree.apply([{ path: [], value }])
  }

  /** Listen; the first call comes once the value is known. Returns how to stop. */
  on(type: EventType, callback: Callback): () => void {
    let stop: () => void = () => undefined
    const begin = () => {
      stop = this.tree.on([], type, (value, key, previous) =>
        callback(value, type === 'value' ? (this.path.at(-1) ?? null) : key, previous),
      )
    }
    if (this.known) begin()
    else this.waiting.add(begin)
    return () => {
      this.waiting.delete(begin)
      stop()
    }
  }
}

/** The server's refusal in the words of a listener. */
export function describe(path: Path, error: Refused): string {
  return `listening to ${formatPath(path)} was refused: ${error.message}`
}

function overlaid(value: Stored, top: Path, write: QueuedWrite): Stored {
  if (write.method === 'PATCH') {
    const children = Object.entries(write.body as { [key: string]: Json })
    return children.reduce(
      (shown, [relative, child]) => put(shown, top, [...write.path, ...parsePath(relative)], child),
      value,
    )
  }
  return put(value, top, write.path, write.method === 'DELETE' ? null : write.body)
}

function put(value: Stored, top: Path, path: Path, body: Json): Stored {
  const shared = Math.min(top.length, path.length)
  if (top.slice(0, shared).some((key, index) => key !== path[index])) return value
  const inner = path.slice(top.length)
  const current = (place: Path) => getAt(value, place.slice(top.length))
  const stored = prepare(body as Value, path, { now: Date.now(), current })
  if (path.length >= top.length) return setAt(value, inner, stored)
  return getAt(stored, top.slice(path.length))
}
