/**
 * Tracks which heap bytes of a bridged ring are still in use. A sender whose frames would overwrite
 * unread payloads, or point outside of the received bytes, is detected here before they are stored.
 */

import { BridgeFrameError } from './errors.js'
import type { RecordsFrame } from './frames.js'
import type { StrandMap } from './header.js'
import { isHeap } from './schema.js'
import { FIELD_TYPES } from './types.js'

/** A pointer field of the schema: its offset, its null bit, the alignment of its payload. */
interface PointerField {
  readonly at: number
  readonly bit: number
  readonly element: number
}

/** Checks the heap pointers of arriving slots and remembers where each record's payloads begin. */
export class HeapLedger {
  private readonly fields: readonly PointerField[]
  /** For each slot the heap offset of its record's first payload; Infinity when it has none. */
  private readonly starts: Float64Array
  private arriving: Float64Array
  /** A lower bound of the heap offsets that unread records use; recomputed when it is too low. */
  private needed = Infinity
  private came: number

  constructor(
    private readonly map: StrandMap,
    /** The heap offset at which the transfer begins; no earlier bytes are received. */
    origin: number,
  ) {
    this.came = origin
    const { schema, layout } = map
    this.fields = schema.fields.flatMap(({ type }, index) => {
      if (!isHeap(type)) return []
      const element = FIELD_TYPES[type].items.BYTES_PER_ELEMENT
      return [{ at: layout.byteOffsets[index]!, bit: layout.nullBits[index]!, element }]
    })
    this.starts = new Float64Array(map.indexCapacity).fill(Infinity)
    this.arriving = new Float64Array(64)
  }

  /**
   * Check every pointer of a frame's slots, without a change before `accept`. The heap bytes of a
   * frame begin at `expected` or later: the sender skips bytes that no unread record uses.
   */
  check(frame: RecordsFrame, expected: number): void {
    const { recordStride } = this.map
    const after = frame.heap + frame.payloads.length
    const from = frame.heap > expected ? frame.heap : this.came
    if (frame.count > this.arriving.length) this.arriving = new Float64Array(2 * frame.count)
    if (this.fields.length === 0) return void this.arriving.fill(Infinity, 0, frame.count)
    const view = new DataView(frame.slots.buffer, frame.slots.byteOffset, frame.slots.length)
    for (let index = 0; index < frame.count; index += 1) {
      let start = Infinity
      for (const field of this.fields)
        start = Math.min(start, this.checkPointer(view, index * recordStride, field, from, after))
      this.arriving[index] = start
    }
  }

  /** Store the result of `check`. */
  accept(frame: RecordsFrame, expected: number): void {
    if (frame.heap > expected) this.came = frame.heap
    for (let index = 0; index < frame.count; index += 1) {
      const start = this.arriving[index]!
      this.starts[(frame.first + index) % this.map.indexCapacity] = start
      this.needed = Math.min(this.needed, start)
    }
  }

  /** Whether the heap may grow to `end` while the records from `read` to `committed` are unread. */
  hasRoom(end: number, read: number, committed: number): boolean {
    const lowest = end - this.map.heapCapacity
    if (this.needed >= lowest) return true
    this.needed = Infinity
    for (let seq = read; seq < committed; seq += 1)
      this.needed = Math.min(this.needed, this.starts[seq % this.map.indexCapacity]!)
    return this.needed >= lowest
  }

  /** The heap offset of a pointer's payload; Infinity when there is none. */
  private checkPointer(
    view: DataView,
    slot: number,
    { at, bit, element }: PointerField,
    from: number,
    after: number,
  ): number {
    if (bit >= 0 && ((view.getUint8(slot + (bit >> 3)) >> (bit & 7)) & 1) === 0) return Infinity
    const { version, heapCapacity } = this.map
    const wide = version === 6
    const low = view.getUint32(slot + at, true)
    const size = wide ? view.getUint32(slot + at + 8, true) : view.getUint16(slot + at + 4, true)
    if (size === 0) return Infinity
    // v5 stores the low 32 bits; the heap is smaller than 2^32, so the highest such offset is right.
    const start = wide
      ? view.getUint32(slot + at + 4, true) * 2 ** 32 + low
      : after - (((((after % 2 ** 32) - low) % 2 ** 32) + 2 ** 32) % 2 ** 32)
    const inside = start >= Math.max(from, after - heapCapacity) && start + size <= after
    const whole = (start % heapCapacity) + size <= heapCapacity
    if (!inside || !whole || start % element !== 0 || size % element !== 0)
      throw new BridgeFrameError(`a record points at ${size} heap bytes that were not received`)
    return start
  }
}
