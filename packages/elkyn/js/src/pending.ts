/** Pending writes to a server, as edits of a value that follows the server's events. */

import { type Change, type Edit, type Overlay } from './overlay.ts'
import { isWithin, type Path } from './paths.ts'
import type { QueuedWrite } from './queue.ts'
import type { Stored } from './values.ts'

/** How long an acknowledged write is shown while its event has not arrived. */
const HELD_MS = 2000

interface Held {
  edit: Edit
  isAnswered: boolean
  /** Its position in the server's log, if the server returned one. */
  position: number | null
  timer: ReturnType<typeof setTimeout> | undefined
}

/** The changes of an event, and its stream's position after it. */
export interface Confirmed {
  base: Path
  changes: readonly Change[]
  position: number | null
}

export class PendingWrites {
  private readonly held = new Map<QueuedWrite, Held>()
  private readonly positions = new Map<string, number>()

  /**
   * @param changed is called when a timeout has changed the overlay's value
   */
  constructor(
    private readonly overlay: Overlay,
    private readonly changed: () => void,
  ) {}

  /** Show a write that changes these places. */
  add(write: QueuedWrite, changes: readonly Change[]): void {
    if (changes.length === 0) return
    const edit = changes.map(({ path, value }) => ({ path, value: (): Stored => value }))
    this.overlay.add(edit)
    this.held.set(write, { edit, isAnswered: false, position: null, timer: undefined })
  }

  /** The server has applied a write: show it until its event arrives. */
  done(write: QueuedWrite, position: number | null): void {
    const held = this.held.get(write)
    if (!held) return
    held.isAnswered = true
    held.position = position
    if (this.isConfirmed(held)) this.drop(write)
    else held.timer = setTimeout(() => this.drop(write), HELD_MS)
  }

  /** Stop showing a write. */
  drop(write: QueuedWrite): void {
    const held = this.held.get(write)
    if (!held) return
    this.held.delete(write)
    clearTimeout(held.timer)
    this.overlay.drop(held.edit)
    this.changed()
  }

  /** Process an event: acknowledged writes that it contains are dropped. */
  confirm({ base, changes, position }: Confirmed): void {
    if (position !== null) this.positions.set(base.join('/'), position)
    for (const [write, held] of this.held) {
      if (!held.isAnswered) continue
      const contained =
        held.position === null || position === null
          ? touches(held.edit, changes)
          : this.isConfirmed(held)
      if (!contained) continue
      this.held.delete(write)
      clearTimeout(held.timer)
      this.overlay.drop(held.edit)
    }
  }

  close(): void {
    for (const { timer } of this.held.values()) clearTimeout(timer)
    this.held.clear()
  }

  /** Whether all streams of a write's paths have passed its position. */
  private isConfirmed({ edit, position }: Held): boolean {
    if (position === null || this.positions.size === 0) return false
    for (const [base, reached] of this.positions) {
      const top = base === '' ? [] : base.split('/')
      if (reached < position && edit.some(({ path }) => isWithin(path, top))) return false
    }
    return true
  }
}

function touches(edit: Edit, changes: readonly Change[]): boolean {
  return edit.some(({ path: place }) =>
    changes.some(({ path }) => isWithin(path, place) || isWithin(place, path)),
  )
}
