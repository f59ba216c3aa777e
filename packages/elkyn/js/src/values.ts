/**
 * Values of the tree: JSON on the outside, maps of non-empty maps and scalars inside.
 *
 * The *stored form* has no arrays, no empty maps and no nulls; absent is null. Stored values are
 * never changed in place, so snapshots can be shared.
 */

import { BadValue } from './errors.ts'
import { asInteger, compareKeys, DEPTH_MAX, formatPath, keyProblem, type Path } from './paths.ts'

export type Scalar = string | number | boolean
export type Json = Scalar | null | Json[] | { [key: string]: Json }
export type Stored = Scalar | null | StoredMap
export type StoredMap = ReadonlyMap<string, Exclude<Stored, null>>
/** A value to write: JSON with server values, undefined for no value. */
export type Value = Scalar | null | undefined | readonly Value[] | { readonly [key: string]: Value }

/** The inputs of server values: the time of the write, and the current value. */
export interface Resolver {
  now: number
  current(path: Path): Stored
  /** Whether `.priority` and `.value` are allowed: a server stores them, a local tree does not. */
  priorities?: boolean
}

export function isMap(value: Stored): value is StoredMap {
  return value instanceof Map
}

/** Check `value` for writing at `path`, resolve server values, and bring it to the stored form. */
export function prepare(value: Value, path: Path, resolver: Resolver): Stored {
  if (value === null || value === undefined) return null
  if (typeof value === 'string') {
    if (!value.isWellFormed()) {
      throw new BadValue(formatPath(path), 'text is not valid Unicode (a lone surrogate)')
    }
    return value
  }
  if (typeof value === 'boolean') return value
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) {
      throw new BadValue(formatPath(path), 'a number must be finite')
    }
    return value
  }
  if (typeof value !== 'object') {
    throw new BadValue(formatPath(path), `a tree cannot store a ${typeof value}`)
  }
  if (Array.isArray(value)) return prepareMap(Object.entries(value), path, resolver)
  const fields = value as { readonly [key: string]: Value }
  if ('.sv' in fields) return serverValue(fields['.sv'], path, resolver)
  const kind = Object.prototype.toString.call(value).slice(8, -1)
  if (kind !== 'Object') throw new BadValue(formatPath(path), `a tree cannot store a ${kind}`)
  if (!resolver.priorities) return prepareMap(Object.entries(fields), path, resolver)
  checkPriority(fields['.priority'], path)
  if ('.value' in fields) return prepare(fields['.value'], path, resolver)
  const children = Object.entries(fields).filter(([key]) => key !== '.priority')
  return prepareMap(children, path, resolver)
}

function checkPriority(priority: Value, path: Path): void {
  if (priority !== null && priority !== undefined && typeof priority === 'object') {
    throw new BadValue(formatPath(path), 'a priority must be a number or a string')
  }
}

function prepareMap(entries: [string, Value][], path: Path, resolver: Resolver): Stored {
  const kept: [string, Exclude<Stored, null>][] = []
  for (const [key, child] of entries) {
    const problem = keyProblem(key)
    if (problem) throw new BadValue(formatPath(path), problem)
    if (path.length >= DEPTH_MAX) {
      throw new BadValue(formatPath(path), `the tree is at most ${DEPTH_MAX} levels deep`)
    }
    const stored = prepare(child, [...path, key], resolver)
    if (stored !== null) kept.push([key, stored])
  }
  return ordered(kept)
}

function serverValue(spec: Value, path: Path, resolver: Resolver): Stored {
  if (spec === 'timestamp') return resolver.now
  if (spec !== null && typeof spec === 'object' && 'increment' in spec) {
    const by = (spec as { increment: Value }).increment
    if (typeof by === 'number' && Number.isFinite(by)) {
      const current = resolver.current(path)
      return typeof current === 'number' ? current + by : by
    }
  }
  throw new BadValue(
    formatPath(path),
    'unknown server value; use {".sv": "timestamp"} or {".sv": {"increment": number}}',
  )
}

function ordered(entries: [string, Exclude<Stored, null>][]): Stored {
  if (entries.length === 0) return null
  return new Map(entries.sort(([left], [right]) => compareKeys(left, right)))
}

/**
 * The outside form: plain objects, and arrays where keys count from zero densely enough.
 *
 * A map becomes an array when every key is a canonical integer of zero or more and the greatest is less than
 * twice the number of keys; holes are null (as the Firebase SDKs do it).
 *
 * @param cache the results for maps: a stored map never changes, so neither does its result
 */
export function present(value: Stored, cache?: WeakMap<StoredMap, Json>): Json {
  if (!isMap(value)) return value
  const known = cache?.get(value)
  if (known !== undefined) return known
  const result = presentMap(value, cache)
  cache?.set(value, result)
  return result
}

function presentMap(value: StoredMap, cache?: WeakMap<StoredMap, Json>): Json {
  const keys = [...value.keys()]
  const numbers = keys.map(asInteger)
  const greatest = numbers.at(-1) ?? null
  const isPlace = (key: string, index: number) => String(numbers[index]) === key
  if (
    greatest !== null &&
    numbers.every((number) => number !== null && number >= 0) &&
    keys.every(isPlace) && // not "01": an integer in the order of keys, but not an array index
    greatest < 2 * keys.length
  ) {
    return Array.from({ length: greatest + 1 }, (_, index) =>
      present(value.get(String(index)) ?? null, cache),
    )
  }
  return Object.fromEntries([...value].map(([key, child]) => [key, present(child, cache)]))
}

/** The value at `path` below `value`. */
export function getAt(value: Stored, path: Path): Stored {
  for (const key of path) {
    if (!isMap(value)) return null
    value = value.get(key) ?? null
  }
  return value
}

/** `value` with `next` at `path`; empty maps are removed, a scalar above `path` is replaced. */
export function setAt(value: Stored, path: Path, next: Stored): Stored {
  const [key, ...rest] = path
  if (key === undefined) return next
  const children = isMap(value) ? value : null
  const before = children?.get(key) ?? null
  if (next === null && before === null) return value
  const child = setAt(before, rest, next)
  if (children === null) return child === null ? null : new Map([[key, child]])
  if (child !== null)
    return before === null ? inserted(children, key, child) : replaced(children, key, child)
  const fewer = new Map(children)
  fewer.delete(key)
  return fewer.size ? fewer : null
}

function replaced(children: StoredMap, key: string, child: Exclude<Stored, null>): StoredMap {
  return new Map(children).set(key, child)
}

function inserted(children: StoredMap, key: string, child: Exclude<Stored, null>): StoredMap {
  const entries = [...children]
  let [low, high] = [0, entries.length]
  const last = entries.at(-1)
  if (last && compareKeys(last[0], key) < 0) low = high
  while (low < high) {
    const middle = (low + high) >> 1
    if (compareKeys(entries[middle]?.[0] ?? '', key) < 0) low = middle + 1
    else high = middle
  }
  entries.splice(low, 0, [key, child])
  return new Map(entries)
}

/** Compare stored forms. */
export function same(left: Stored, right: Stored): boolean {
  if (left === right) return true
  if (!isMap(left) || !isMap(right) || left.size !== right.size) return false
  for (const [key, child] of left) {
    if (!same(child, right.get(key) ?? null)) return false
  }
  return true
}

/** Stored form of JSON that was checked before (by a server, or when it was written). */
export function fromJson(value: Json): Stored {
  if (value === null || typeof value !== 'object') return value
  if (!Array.isArray(value) && value['.value'] !== undefined) return fromJson(value['.value'])
  const kept: [string, Exclude<Stored, null>][] = []
  for (const [key, child] of Object.entries(value)) {
    const stored = key === '.priority' ? null : fromJson(child)
    if (stored !== null) kept.push([key, stored])
  }
  return ordered(kept)
}
