/**
 * Pending writes in a storage, one entry each, so that they survive the page that made them.
 *
 * Each client has its own slot, and holds a lock with the slot's name. A client that acquires the
 * lock of another slot knows that its page has gone, and adopts its writes. Where there are no locks,
 * all clients share one slot: each starting client sends its writes, and the server applies each once
 * because of its idempotency key.
 */

import { type Held, hasLocks, holdLock } from './locks.ts'
import { randomName } from './random.ts'
import type { QueuedWrite } from './queue.ts'

/** A storage of pending writes: `localStorage`, or an object like it. */
export interface QueueStorage {
  readonly length: number
  key(index: number): string | null
  getItem(name: string): string | null
  setItem(name: string, text: string): void
  removeItem(name: string): void
}

/** The time within which a new page acquires the lock of its slot. */
const LOCK_MS = 300

export class StoredWrites {
  private readonly slot: string
  private readonly names = new Map<QueuedWrite, string>()
  private readonly watched = new Map<string, Held>()
  private made = 0
  private timer: ReturnType<typeof setTimeout> | undefined

  /**
   * @param deliver receives the stored writes of pages that are gone, oldest first
   */
  constructor(
    private readonly storage: QueueStorage,
    private readonly prefix: string,
    private readonly deliver: (writes: QueuedWrite[]) => void,
  ) {
    this.slot = `${prefix}/${hasLocks() ? randomName() : 'shared'}/`
    if (hasLocks()) {
      this.watched.set(this.slot, holdLock(this.slot))
      globalThis.addEventListener?.('storage', this.lookSoon)
      this.lookSoon()
    } else {
      this.adopt(this.slot)
    }
  }

  /** Store a write; throws the storage's error when it is full. */
  add(write: QueuedWrite): void {
    const order = `${Date.now().toString(36).padStart(9, '0')}-${String((this.made += 1)).padStart(9, '0')}`
    const name = `${this.slot}${order}-${randomName().slice(0, 8)}`
    this.storage.setItem(name, JSON.stringify(write))
    this.names.set(write, name)
  }

  /** Remove a write after its response. */
  remove(write: QueuedWrite): void {
    const name = this.names.get(write)
    this.names.delete(write)
    if (name !== undefined) this.storage.removeItem(name)
  }

  /** Leave the stored writes to other clients. */
  close(): void {
    globalThis.removeEventListener?.('storage', this.lookSoon)
    clearTimeout(this.timer)
    for (const { release } of this.watched.values()) release()
  }

  private readonly lookSoon = () => {
    this.timer ??= setTimeout(() => {
      this.timer = undefined
      this.look()
    }, LOCK_MS)
  }

  private look(): void {
    for (const name of this.stored(`${this.prefix}/`)) {
      const slot = name.slice(0, name.lastIndexOf('/') + 1)
      if (!this.watched.has(slot)) {
        this.watched.set(
          slot,
          holdLock(slot, () => this.adopt(slot)),
        )
      }
    }
  }

  /** Adopt the writes of a slot. */
  private adopt(slot: string): void {
    const writes: QueuedWrite[] = []
    for (const name of this.stored(slot)) {
      try {
        const write = JSON.parse(this.storage.getItem(name) ?? '') as QueuedWrite
        this.names.set(write, name)
        writes.push(write)
      } catch {
        this.storage.removeItem(name) // not a stored write
      }
    }
    if (writes.length) this.deliver(writes)
  }

  private stored(prefix: string): string[] {
    const names = Array.from({ length: this.storage.length }, (_, index) => this.storage.key(index))
    return names.filter((name): name is string => name?.startsWith(prefix) ?? false).sort()
  }
}
