/** A cursor over typed records: allocate it once, then seek from record to record. */

import type { Consumer } from './consumer.js'
import { StrandCorruptError } from './errors.js'
import { FieldGetters, type FieldType, type ItemsConstructor } from './types.js'

/** The strings that `utf8_ref` handles refer to, shared by all cursors of a view. */
export interface InternTable {
  strings: readonly string[]
}

const SHORT_TEXT = 24 // below this a loop is faster than the decoder

/**
 * Points at one record of a ring. `seek` allocates nothing; strings and JSON are decoded once for a
 * record; bytes and arrays are views into the ring itself, valid until the record is acknowledged.
 */
export class RecordCursor extends FieldGetters {
  /** The record under the cursor; -1 before the first. */
  seq = -1
  private slot = 0
  private visit = 0
  private readonly positions: ReadonlyMap<string, number>
  private readonly types: readonly FieldType[]
  private readonly offsets: readonly number[]
  private readonly nullBits: readonly number[]
  private readonly wide: boolean
  private readonly slotMask: number
  private readonly heapMask: number
  private readonly cached: unknown[]
  private readonly cachedAt: Float64Array
  private readonly bytes: Uint8Array
  protected readonly view: DataView
  private readonly decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  private scratch = new Uint8Array(256)

  /** Use `StrandView.allocateCursor()`. */
  constructor(
    private readonly buffer: ArrayBufferLike,
    private readonly consumer: Consumer,
    private readonly intern: InternTable,
  ) {
    super()
    const { map } = consumer
    const { schema, layout } = map
    this.positions = new Map(schema.names.map((name, at) => [name, at]))
    this.types = schema.fields.map((field) => field.type)
    this.offsets = layout.byteOffsets
    this.nullBits = layout.nullBits
    this.wide = map.version === 6
    this.slotMask = map.indexCapacity - 1
    this.heapMask = map.heapCapacity - 1
    this.cached = schema.names.map(() => null)
    this.cachedAt = new Float64Array(schema.names.length)
    this.bytes = new Uint8Array(buffer)
    this.view = new DataView(buffer)
  }

  /**
   * Move to record `seq`. Returns false without moving when it is not committed yet, or was
   * acknowledged and may be overwritten.
   */
  seek(seq: number): boolean {
    const { consumer } = this
    if (!consumer.readable(seq)) return false
    const { indexStart, recordStride } = consumer.map
    this.seq = seq
    this.slot = indexStart + ((seq >>> 0) & this.slotMask) * recordStride
    this.visit += 1
    return true
  }

  /** The handle itself, where there is no intern table or its string is not needed. */
  getHandle(name: string): number | null {
    const at = this.locate(name, 'utf8_ref')
    return at < 0 ? null : this.view.getUint32(at, true)
  }

  /** All values in field order. */
  toTuple(): unknown[] {
    return this.consumer.map.schema.names.map((name) => this.get(name))
  }

  /** All values by field name. */
  toObject(): Record<string, unknown> {
    return Object.fromEntries(this.consumer.map.schema.names.map((name) => [name, this.get(name)]))
  }

  private position(name: string): number {
    const at = this.positions.get(name)
    if (at === undefined)
      throw new RangeError(
        `there is no field '${name}'; the schema has ${[...this.positions.keys()].join()}`,
      )
    return at
  }

  protected typeOf(name: string): FieldType {
    return this.types[this.position(name)]!
  }

  protected locate(name: string, type: FieldType): number {
    const at = this.position(name)
    if (this.types[at] !== type)
      throw new TypeError(`field '${name}' is ${this.types[at]}, not ${type}`)
    if (!(this.seq >= this.consumer.lowWaterMark))
      throw new RangeError(
        this.seq < 0
          ? 'seek a record before reading it'
          : `record ${this.seq} was acknowledged and may be overwritten`,
      )
    const bit = this.nullBits[at]!
    if (bit >= 0 && ((this.bytes[this.slot + (bit >> 3)]! >> (bit & 7)) & 1) === 0) return -1
    return this.slot + this.offsets[at]!
  }

  private lengthOf(at: number): number {
    return this.wide ? this.view.getUint32(at + 8, true) : this.view.getUint16(at + 4, true)
  }

  /** Byte offset in the ring of the payload whose pointer is at `at`; checked against the heap. */
  private payload(at: number, element: number): number {
    const size = this.lengthOf(at)
    const { heapStart, heapCapacity } = this.consumer.map
    if (size === 0) return heapStart
    const physical = (this.view.getUint32(at, true) & this.heapMask) >>> 0
    if (physical + size > heapCapacity || size % element !== 0 || physical % element !== 0)
      throw new StrandCorruptError(`record ${this.seq} points at ${size} bytes outside of the heap`)
    return heapStart + physical
  }

  protected interned(handle: number): string | null {
    return this.intern.strings[handle] ?? null
  }

  protected items<T extends ArrayBufferView>(at: number, type: ItemsConstructor<T>): T {
    const element = type.BYTES_PER_ELEMENT
    return new type(this.buffer, this.payload(at, element), this.lengthOf(at) / element)
  }

  protected decoded(name: string, at: number): unknown {
    const field = this.position(name)
    if (this.cachedAt[field] === this.visit) return this.cached[field]
    const text = this.decode(this.payload(at, 1), this.lengthOf(at))
    let value: unknown = text
    if (this.types[field] === 'json')
      try {
        value = JSON.parse(text)
      } catch (error) {
        throw new StrandCorruptError(`record ${this.seq} has bad JSON: ${String(error)}`)
      }
    this.cached[field] = value
    this.cachedAt[field] = this.visit
    return value
  }

  /** Decode UTF-8 from a copy, because the decoders of browsers reject shared memory. */
  private decode(start: number, size: number): string {
    const { bytes } = this
    if (size <= SHORT_TEXT) {
      let text = ''
      let at = 0
      for (; at < size && bytes[start + at]! < 0x80; at += 1)
        text += String.fromCharCode(bytes[start + at]!)
      if (at === size) return text
    }
    if (size > this.scratch.length) this.scratch = new Uint8Array(2 ** Math.ceil(Math.log2(size)))
    this.scratch.set(bytes.subarray(start, start + size))
    try {
      return this.decoder.decode(this.scratch.subarray(0, size))
    } catch (error) {
      throw new StrandCorruptError(`record ${this.seq} has text that is no UTF-8: ${String(error)}`)
    }
  }
}
