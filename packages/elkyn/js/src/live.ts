/** What a path looks like here: the server's value, and over it the writes still on their way. */

import { changesOf, eventChanges } from './edits.js'
import { Overlay } from './overlay.js'
import type { Path } from './paths.js'
import { PendingWrites } from './pending.js'
import type { QueuedWrite } from './queue.js'
import { positionOf, type StreamEvent } from './stream.js'
import { type Callback, checkListener, type EventType, Tree } from './tree.js'

export class Live {
  private known = false
  private readonly overlay = new Overlay()
  private readonly tree = new Tree()
  private readonly pending = new PendingWrites(this.overlay, () => this.show())
  private readonly early = new Set<QueuedWrite>()
  private readonly waiting = new Set<() => void>()

  constructor(readonly path: Path) {}

  /** Take an event of the stream of this path. */
  take(event: StreamEvent): void {
    const changes = eventChanges([], event)
    this.overlay.settle(changes)
    this.pending.told({ base: [], changes, position: positionOf(event.id) })
    this.known = true
    for (const write of this.early) this.add(write)
    this.early.clear()
    this.show()
    for (const begin of [...this.waiting]) begin()
    this.waiting.clear()
  }

  /** Show a write that is on its way. */
  add(write: QueuedWrite): void {
    if (!this.known) {
      this.early.add(write)
      return
    }
    this.pending.add(write, changesOf(write, this.path, this.overlay.shown))
    this.show()
  }

  /** A write was carried out: show it until its event comes. */
  done(write: QueuedWrite, position: number | null): void {
    this.early.delete(write)
    this.pending.done(write, position)
  }

  /** Show a write no more: it was refused. */
  forget(write: QueuedWrite): void {
    this.early.delete(write)
    this.pending.drop(write)
  }

  /** Listen; the first call comes once the value is known. Returns how to stop. */
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

  /** Tell nobody anything more. */
  close(): void {
    this.pending.close()
    this.waiting.clear()
    this.tree.clear()
  }

  private show(): void {
    this.tree.show(this.overlay.shown)
  }
}
