/** An in-memory tree that notifies its listeners of changes: value and child events, in order. */

import { ElkynError } from './errors.ts'
import { formatPath, type Path } from './paths.ts'
import { getAt, isMap, type Json, present, same, type Stored } from './values.ts'

export type EventType = 'value' | 'child_added' | 'child_changed' | 'child_removed'

/** A listener's arguments: the value, and for child events its key and the key before it. */
export type Callback = (value: Json, key: string | null, previousKey: string | null) => void

interface Listener {
  path: Path
  type: EventType
  callback: Callback
  /** The last value it was called with: a callback that writes triggers others out of order. */
  last: Stored
}

const EVENTS: readonly string[] = ['value', 'child_added', 'child_changed', 'child_removed']

/** Refuse an invalid event or callback, before a stream is opened for it. */
export function checkListener(type: EventType, callback: Callback): void {
  if (!EVENTS.includes(type)) {
    throw new ElkynError(`unknown event "${String(type)}": use one of ${EVENTS.join(', ')}`)
  }
  if (typeof callback !== 'function') throw new ElkynError('a listener must be a function')
}

export class Tree {
  private readonly listeners = new Set<Listener>()
  private root: Stored = null

  get(path: Path): Stored {
    return getAt(this.root, path)
  }

  /** Show another value; notify listeners of the difference from their last value. */
  show(root: Stored): void {
    if (root === this.root) return
    this.root = root
    for (const listener of [...this.listeners]) {
      if (this.listeners.has(listener)) notify(listener, this.get(listener.path))
    }
  }

  /** Call `callback` for the current value and each change; returns the unsubscribe function. */
  on(path: Path, type: EventType, callback: Callback): () => void {
    checkListener(type, callback)
    const listener: Listener = { path, type, callback, last: null }
    this.listeners.add(listener)
    const now = this.get(path)
    if (type === 'value' && now === null) guarded(listener, null, path.at(-1) ?? null, null)
    else notify(listener, now)
    return () => void this.listeners.delete(listener)
  }

  clear(): void {
    this.listeners.clear()
  }
}

function notify(listener: Listener, now: Stored): void {
  const before = listener.last
  listener.last = now
  if (listener.type === 'value') {
    if (!same(before, now)) guarded(listener, now, listener.path.at(-1) ?? null, null)
    return
  }
  for (const [value, key, previous] of childEvents(listener.type, before, now)) {
    guarded(listener, value, key, previous)
  }
}

function* childEvents(
  type: EventType,
  before: Stored,
  now: Stored,
): Generator<[Stored, string, string | null]> {
  const old = isMap(before) ? before : new Map<string, never>()
  const fresh = isMap(now) ? now : new Map<string, never>()
  if (type === 'child_removed') {
    for (const [key, child] of old) if (!fresh.has(key)) yield [child, key, null]
    return
  }
  let previous: string | null = null
  for (const [key, child] of fresh) {
    const known = old.get(key)
    if (type === 'child_added' && known === undefined) yield [child, key, previous]
    if (type === 'child_changed' && known !== undefined && !same(known, child)) {
      yield [child, key, previous]
    }
    previous = key
  }
}

/** Call a listener; its exception must not affect the others, and is reported to the platform. */
function guarded(
  { type, path, callback }: Listener,
  value: Stored,
  key: string | null,
  previous: string | null,
): void {
  try {
    callback(present(value), key, previous)
  } catch (cause) {
    queueMicrotask(() => {
      throw new Error(`a ${type} listener of ${formatPath(path)} failed`, { cause })
    })
  }
}
