/** Rings for tests: what they are made of, and what a list would say is in them. */

import {
  buildSchema,
  computeStrandMap,
  initStrandHeader,
  StrandView,
  StrandWriter,
  type FieldSpec,
  type StrandMapOptions,
  type StrandRecord,
} from '../src/index.js'

export const VERSIONS = [5, 6] as const

export function freshRing(
  fields: readonly FieldSpec[],
  options: Omit<StrandMapOptions, 'schema'> = {},
): SharedArrayBuffer {
  const map = computeStrandMap({
    schema: buildSchema(fields),
    indexCapacity: 8,
    heapCapacity: 256,
    ...options,
  })
  const buffer = new SharedArrayBuffer(map.totalBytes)
  initStrandHeader(buffer, map)
  return buffer
}

export function openRing(
  fields: readonly FieldSpec[],
  options: Omit<StrandMapOptions, 'schema'> = {},
): { buffer: SharedArrayBuffer; writer: StrandWriter; view: StrandView } {
  const buffer = freshRing(fields, options)
  return { buffer, view: new StrandView(buffer), writer: new StrandWriter(buffer) }
}

/** Every readable record as a tuple, bytes and arrays as plain lists. */
export function readAll(view: StrandView): unknown[][] {
  const cursor = view.allocateCursor()
  const rows: unknown[][] = []
  for (let seq = view.windowStart; seq < view.committedCount; seq += 1) {
    if (!cursor.seek(seq)) throw new Error(`record ${seq} cannot be read`)
    rows.push(cursor.toTuple().map(listed))
  }
  return rows
}

export function listed(value: unknown): unknown {
  return ArrayBuffer.isView(value) ? [...(value as unknown as Iterable<number>)] : value
}

/** Numbers that look random and are the same in every run (xorshift32). */
export class Dice {
  constructor(private state: number) {}

  below(limit: number): number {
    this.state ^= this.state << 13
    this.state ^= this.state >>> 17
    this.state ^= this.state << 5
    return (this.state >>> 0) % limit
  }
}

export function rows(count: number, from = 0): StrandRecord[] {
  return Array.from({ length: count }, (_, at) => [from + at])
}
