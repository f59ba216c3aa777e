/** A confirmed value with pending edits applied on top. */

import { isWithin, type Path } from './paths.ts'
import { getAt, isMap, setAt, type Stored } from './values.ts'

/** One replaced place of a value. */
export interface Change {
  path: Path
  value: Stored
}

/** One atomic write; each place computes its new value from the value before. */
export type Edit = readonly { path: Path; value: (shown: Stored) => Stored }[]

export class Overlay {
  private base: Stored = null
  private top: Stored = null
  private readonly edits = new Set<Edit>()

  /** The value without edits. */
  get known(): Stored {
    return this.base
  }

  /** The value with all edits applied, in the order in which they were added. */
  get shown(): Stored {
    return this.top
  }

  /** Append an edit. */
  add(edit: Edit): void {
    this.edits.add(edit)
    for (const { path, value } of edit) this.top = setAt(this.top, path, value(this.top))
  }

  /** Remove an edit: it has failed, or the confirmed value contains it now. */
  drop(edit: Edit): void {
    if (this.edits.delete(edit)) for (const { path } of edit) this.redo(path)
  }

  /** Change the confirmed value; `dropped` is an edit that this change confirms. */
  settle(changes: readonly Change[], dropped?: Edit): void {
    for (const { path, value } of changes) this.base = setAt(this.base, path, value)
    if (dropped) this.edits.delete(dropped)
    for (const { path } of [...changes, ...(dropped ?? [])]) this.redo(path)
  }

  /** Recompute the part around `path`. */
  private redo(path: Path): void {
    if (this.edits.size === 0) {
      this.top = this.base
      return
    }
    const region = this.regionOf(path)
    this.top = setAt(this.top, region, getAt(this.base, region))
    for (const edit of this.edits) {
      for (const { path: place, value } of edit) {
        if (isWithin(place, region)) this.top = setAt(this.top, place, value(this.top))
      }
    }
  }

  /** The smallest part at or above `path` that no edit outside it affects. */
  private regionOf(path: Path): Path {
    for (let region = path; ;) {
      let wider = this.belowScalar(region)
      for (const edit of this.edits) {
        for (const { path: place } of edit) if (isWithin(wider, place)) wider = place
      }
      if (wider.length === region.length) return region
      region = wider
    }
  }

  /** A write below a scalar replaces it, so the scalar's path belongs to the part. */
  private belowScalar(path: Path): Path {
    for (const root of [this.base, this.top]) {
      let value = root
      for (const [depth, key] of path.entries()) {
        if (!isMap(value)) {
          if (value !== null) path = path.slice(0, depth)
          break
        }
        value = value.get(key) ?? null
      }
    }
    return path
  }
}
