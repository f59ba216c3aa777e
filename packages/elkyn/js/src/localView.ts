/** The local view of a path: the server's value with the pending writes applied. */

import { changesOf, eventChanges } from './edits.ts'
import { Overlay } from './overlay.ts'
import type { Path } from './paths.ts'
import { PendingWrites } from './pending.ts'
import type { QueuedWrite } from './queue.ts'
import { positionOf, type StreamEvent } from './stream.ts'
import { type Callback, checkListener, type EventType, Tree } from './tree.ts'

export class LocalView {
  private known = false
  private readonly overlay = new Overlay()
  private readonly tree = new Tree()
  private readonly pending = new PendingWrites(this.overlay, () => this.show())
  /** Writes made before the value is known: increments and updates need it. */
  private readonly early = new Set<QueuedWrite>()
  /** Listeners that begin once the value is known. */
  private readonly waiting = new Set<() => void>()

  constructor(readonly path: Path) {}

  /** Apply an event of the stream of this path. */
  apply(event: StreamEvent): void {
    const changes = eventChanges([], event)
    this.overlay.settle(changes)
    this.pending.confirm({ base: [], changes, position: positionOf(event.id) })
    this.known = true
    for (const write of this.early) this.add(write)
    this.early.clear()
    this.show()
    for (const begin of [...this.waiting]) begin()
    this.waiting.clear()
  }

  /** Show a pending write. */
  add(write: QueuedWrite): void {
    if (!this.known) {
      this.early.add(write)
      return
    }
    this.pending.add(write, changesOf(write, this.path, this.overlay.shown))
    this.show()
  }

  /** The server has applied a write: show it until its event arrives. */
  done(write: QueuedWrite, position: number | null): void {
    this.early.delete(write)
    this.pending.done(write, position)
  }

  /** Stop showing a write: it was refused. */
  forget(write: QueuedWrite): void {
    this.early.delete(write)
    this.pending.drop(write)
  }

  /** Listen; the first call comes once the value is known. Returns the unsubscribe function. */
  on(type: EventType, callback: Callback): () => void {
    checkListener(type, callback)
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

  /** Stop calling listeners. */
  close(): void {
    this.pending.close()
    this.waiting.clear()
    this.tree.clear()
  }

  private show(): void {
    this.tree.show(this.overlay.shown)
  }
}
