/** A tree in memory that tells its listeners what changed: value and child events, in order. */

import { formatPath, type Path } from './paths'
import { getAt, isMap, type Json, present, same, setAt, type Stored } from './values'

export type EventType = 'value' | 'child_added' | 'child_changed' | 'child_removed'

/** What a listener gets: the value, and for child events its key and the key before it. */
export type Callback = (value: Json, key: string | null, previousKey: string | null) => void

/** One replaced place of the tree. */
export interface Change {
  path: Path
  value: Stored
}

interface Listener {
  path: Path
  type: EventType
  callback: Callback
}

export class Tree {
  private readonly listeners = new Set<Listener>()

  constructor(private root: Stored = null) {}

  get(path: Path): Stored {
    return getAt(this.root, path)
  }

  /** Apply changes at once; listeners hear of the difference between before and after. */
  apply(changes: readonly Change[]): void {
    const before = this.root
    for (const { path, value } of changes) this.root = setAt(this.root, path, value)
    if (this.root === before) return
    for (const listener of [...this.listeners]) {
      if (this.listeners.has(listener))
        tell(listener, getAt(before, listener.path), this.get(listener.path))
    }
  }

  /** Call `callback` for what is there now and for each change after it; returns how to stop. */
  on(path: Path, type: EventType, callback: Callback): () => void {
    const listener = { path, type, callback }
    this.listeners.add(listener)
    const now = this.get(path)
    if (type === 'value') callback(present(now), path.at(-1) ?? null, null)
    else tell(listener, null, now)
    return () => this.listeners.delete(listener)
  }

  clear(): void {
    this.listeners.clear()
  }
}

function tell(listener: Listener, before: Stored, now: Stored): void {
  if (listener.type === 'value') {
    if (!same(before, now))
      guarded(listener, () => listener.callback(present(now), listener.path.at(-1) ?? null, null))
    return
  }
  for (const [value, key, previous] of childEvents(listener.type, before, now)) {
    guarded(listener, () => listener.callback(present(value), key, previous))
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

/** A listener that throws must not keep the others from hearing; its error goes to the platform. */
function guarded(listener: Listener, call: () => void): void {
  try {
    call()
  } catch (error) {
    const where = `a ${listener.type} listener of ${formatPath(listener.path)} failed`
    queueMicrotask(() => {
      throw new Error(where, { cause: error })
    })
  }
}
