/** Converts writes and events to the replaced places of a value. */

import type { Change } from './overlay.ts'
import { isWithin, parsePath, type Path } from './paths.ts'
import type { QueuedWrite } from './queue.ts'
import type { StreamEvent } from './stream.ts'
import { fromJson, getAt, type Json, prepare, setAt, type Stored, type Value } from './values.ts'

/** The places of an event's or update's children, below `base`. */
export function placesOf<T>(base: Path, children: { readonly [key: string]: T }): [Path, T][] {
  return Object.entries(children).map(([relative, child]) => [
    [...base, ...parsePath(relative)],
    child,
  ])
}

/** The changes that `write` makes to the value `shown` at `top`; empty for none. */
export function changesOf(write: QueuedWrite, top: Path, shown: Stored): Change[] {
  const places: [Path, Json][] =
    write.method === 'PATCH'
      ? placesOf(write.path, write.body as { [key: string]: Json })
      : [[write.path, write.method === 'DELETE' ? null : write.body]]
  return places.flatMap(([path, body]) => {
    if (!isWithin(path, top) && !isWithin(top, path)) return []
    const current = (place: Path) =>
      isWithin(place, top) ? getAt(shown, place.slice(top.length)) : null
    const stored = prepare(body as Value, path, { now: Date.now(), current, priorities: true })
    return [
      isWithin(path, top)
        ? { path: path.slice(top.length), value: stored }
        : { path: [], value: getAt(stored, top.slice(path.length)) },
    ]
  })
}

/** The places that an event of the stream of `base` replaces. */
export function eventChanges(base: Path, event: StreamEvent): Change[] {
  const at = [...base, ...parsePath(event.path)]
  if (event.type === 'put') return [{ path: at, value: fromJson(event.data) }]
  const places = placesOf(at, event.data as { [key: string]: Json })
  return places.map(([path, value]) => ({ path, value: fromJson(value) }))
}

/** `value` after an event of the stream of `base`. */
export function applyEvent(value: Stored, base: Path, event: StreamEvent): Stored {
  return eventChanges(base, event).reduce(
    (current, change) => setAt(current, change.path, change.value),
    value,
  )
}
