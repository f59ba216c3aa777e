/** Writes on their way to a server, as edits of a value that follows the server's events. */

import { type Change, type Edit, type Overlay } from './overlay.js'
import { isWithin, type Path } from './paths.js'
import type { QueuedWrite } from './queue.js'
import type { Stored } from './values.js'

/** How long an answered write is shown while its event has not come. */
const HELD_MS = 2000

interface Held {
  edit: Edit
  isAnswered: boolean
  /** Where the server's log has it, when it said so. */
  position: number | null
  timer: ReturnType<typeof setTimeout> | undefined
}

/** What an event says, and where its stream is then. */
export interface Told {
  base: Path
  changes: readonly Change[]
  position: number | null
}

export class PendingWrites {
  private readonly held = new Map<QueuedWrite, Held>()
  private readonly positions = new Map<string, number>()

  /**
   * @param changed is called when time has changed what the overlay shows
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

  /** A write was carried out: show it until its event comes. */
  done(write: QueuedWrite, position: number | null): void {
    const held = this.held.get(write)
    if (!held) return
    held.isAnswered = true
    held.position = position
    if (this.wasTold(held)) this.drop(write)
    else held.timer = setTimeout(() => this.drop(write), HELD_MS)
  }

  /** Show a write no more. */
  drop(write: QueuedWrite): void {
    const held = this.held.get(write)
    if (!held) return
    this.held.delete(write)
    clearTimeout(held.timer)
    this.overlay.drop(held.edit)
    this.changed()
  }

  /** An event came: what was answered, and is in it, is shown no more. */
  told({ base, changes, position }: Told): void {
    if (position !== null) this.positions.set(base.join('/'), position)
    for (const [write, held] of this.held) {
      if (!held.isAnswered) continue
      const isTold =
        held.position === null || position === null
          ? touches(held.edit, changes)
          : this.wasTold(held)
      if (!isTold) continue
      this.held.delete(write)
      clearTimeout(held.timer)
      this.overlay.drop(held.edit)
    }
  }

  close(): void {
    for (const { timer } of this.held.values()) clearTimeout(timer)
    this.held.clear()
  }

  /** Whether all streams that tell of a write have passed its position. */
  private wasTold({ edit, position }: Held): boolean {
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
