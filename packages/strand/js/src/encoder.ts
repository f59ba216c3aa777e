/**
 * Encodes records as slots. A record is checked and encoded completely before anything is claimed, so
 * that a value which does not fit its field leaves the ring unchanged.
 */

import { PayloadTooLargeError } from './errors.js'
import type { StrandMap } from './header.js'
import { NO_ROOM, type Producer } from './producer.js'
import { factsOf, heapAlign, isHeap, type StrandField } from './schema.js'
import { storeNumber, type TypeFacts } from './types.js'

/** A record: values by field name, or all of them in field order; null or absent means no value. */
export type StrandRecord = Readonly<Record<string, unknown>> | readonly unknown[]

const V5_PAYLOAD_MAX = 0xffff
const SHORT_BYTES = 32

/** A field and the facts of its type, in one object because looking them up costs time per value. */
interface FieldFacts extends StrandField, TypeFacts {
  readonly heap: boolean
  /** Alignment of its payloads in the heap. */
  readonly align: number
}

/** Encodes one record at a time: `prepare` it, then `write` it, again after waiting for room. */
export class RecordEncoder {
  private readonly fields: readonly FieldFacts[]
  private readonly positions: ReadonlyMap<string, number>
  private readonly handles: ReadonlyMap<string, number>
  private readonly handleCount: number
  private readonly values: unknown[]
  private readonly payloads: (Uint8Array | null)[]
  private readonly text = new TextEncoder()
  private scratch = new Uint8Array(256)
  private used = 0

  constructor(
    private readonly map: StrandMap,
    categories: readonly string[],
  ) {
    const { names, fields } = map.schema
    this.fields = fields.map((field) => {
      const { tag, kind, items, least, most } = factsOf(field.type)
      const align = heapAlign(field.type, map.version)
      return { ...field, tag, kind, items, least, most, heap: isHeap(field.type), align }
    })
    this.positions = new Map(names.map((name, at) => [name, at]))
    this.handleCount = categories.length
    this.handles = new Map(categories.map((text, at) => [text, at]))
    this.values = names.map(() => null)
    this.payloads = names.map(() => null)
  }

  /** Check a record; TypeError or RangeError names the field that its value does not fit. */
  prepare(record: StrandRecord): void {
    const { fields } = this
    this.used = 0
    this.spread(record)
    for (let at = 0; at < fields.length; at += 1) {
      const field = fields[at]!
      const value = (this.values[at] ??= null)
      this.payloads[at] = null
      if (value === null) {
        if (!field.nullable) throw new TypeError(`field '${field.name}' cannot be null`)
      } else if (field.heap) {
        this.payloads[at] = this.encodePayload(field, value)
      } else {
        this.values[at] = this.checkScalar(field, value)
      }
    }
  }

  /** Claim, fill and seal the prepared record; false, and nothing claimed, when there is no room. */
  write(producer: Producer): boolean {
    const seq = producer.claim(1)
    if (seq === NO_ROOM) return false
    try {
      const slot = producer.slotOffset(seq)
      for (let at = 0; at < this.values.length; at += 1)
        if (this.values[at] !== null && !this.writeField(producer, slot, at)) {
          producer.abandon()
          return false
        }
    } catch (error) {
      producer.abandon()
      throw error
    }
    producer.seal(1)
    return true
  }

  private spread(record: StrandRecord): void {
    const { names } = this.map.schema
    if (Array.isArray(record)) {
      if (record.length !== names.length)
        throw new TypeError(
          `a record has ${names.length} fields (${names.join()}), not ${record.length}`,
        )
      for (let at = 0; at < names.length; at += 1) this.values[at] = record[at]
      return
    }
    if (typeof record !== 'object' || record === null)
      throw new TypeError(`a record is an object or an array, not ${String(record)}`)
    this.values.fill(null)
    for (const name of Object.keys(record)) {
      const at = this.positions.get(name)
      if (at === undefined)
        throw new TypeError(`there is no field '${name}'; the schema has ${names.join()}`)
      this.values[at] = (record as Record<string, unknown>)[name]
    }
  }

  private checkScalar(field: FieldFacts, value: unknown): unknown {
    switch (field.kind) {
      case 'handle':
        return this.handleOf(field.name, value)
      case 'boolean':
        if (typeof value === 'boolean') return value ? 1 : 0
        throw refusal(field, value)
      default:
        return checkNumber(field, value)
    }
  }

  private handleOf(name: string, value: unknown): number {
    if (typeof value === 'string') {
      const handle = this.handles.get(value)
      if (handle === undefined)
        throw new RangeError(`field '${name}': ${describe(value)} is not in the intern table`)
      return handle
    }
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 32) {
      // No consumer could read a handle outside of the table.
      if (this.handleCount > 0 && value >= this.handleCount)
        throw new RangeError(`field '${name}': handle ${value} is not in the intern table`)
      return value
    }
    throw new TypeError(
      `field '${name}' is utf8_ref: a string or its handle, not ${describe(value)}`,
    )
  }

  private encodePayload(field: FieldFacts, value: unknown): Uint8Array {
    const payload = this.payloadOf(field, value)
    if (this.map.version === 5 && payload.length > V5_PAYLOAD_MAX)
      throw new PayloadTooLargeError(
        V5_PAYLOAD_MAX,
        payload.length,
        `field '${field.name}' of a v5 ring`,
      )
    return payload
  }

  private payloadOf(field: FieldFacts, value: unknown): Uint8Array {
    switch (field.kind) {
      case 'text':
        if (typeof value === 'string') return this.encodeText(value)
        break
      case 'json': {
        const json = JSON.stringify(value) as string | undefined
        if (json !== undefined) return this.encodeText(json)
        break
      }
      case 'bytes':
        if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer)
          return new Uint8Array(value)
        if (ArrayBuffer.isView(value)) return bytesOf(value)
        break
      default:
        if (value instanceof field.items) return bytesOf(value)
        if (Array.isArray(value))
          return bytesOf(field.items.from(value, (item) => checkNumber(field, item) as never))
    }
    throw refusal(field, value)
  }

  private encodeText(text: string): Uint8Array {
    const most = text.length * 3
    if (this.used + most > this.scratch.length) {
      // Not copied: earlier payloads keep referring to the old array.
      this.scratch = new Uint8Array(Math.max(2 * this.scratch.length, most))
      this.used = 0
    }
    const start = this.used
    this.used += this.encodeShort(text, start)
    if (this.used === start)
      this.used += this.text.encodeInto(text, this.scratch.subarray(start)).written
    return this.scratch.subarray(start, this.used)
  }

  /** Encode a short ASCII string without calling the encoder; 0 for any other string. */
  private encodeShort(text: string, start: number): number {
    if (text.length > SHORT_BYTES) return 0
    for (let at = 0; at < text.length; at += 1) {
      const unit = text.charCodeAt(at)
      if (unit >= 0x80) return 0
      this.scratch[start + at] = unit
    }
    return text.length
  }

  private writeField(producer: Producer, slot: number, at: number): boolean {
    const { layout, version } = this.map
    const { type, align } = this.fields[at]!
    const { view, bytes } = producer
    const bit = layout.nullBits[at]!
    if (bit >= 0) bytes[slot + (bit >> 3)]! |= 1 << (bit & 7)
    const where = slot + layout.byteOffsets[at]!
    const payload = this.payloads[at]!
    if (payload === null) {
      storeNumber(view, where, type, this.values[at])
      return true
    }
    const offset = producer.claimHeap(payload.length, align)
    if (offset === NO_ROOM) return false
    copyInto(bytes, producer.heapOffset(offset), payload)
    view.setUint32(where, offset % 2 ** 32, true)
    if (version === 5) view.setUint16(where + 4, payload.length, true)
    else {
      view.setUint32(where + 4, Math.floor(offset / 2 ** 32), true)
      view.setUint32(where + 8, payload.length, true)
    }
    return true
  }
}

/** For a few bytes a loop is faster than `set`. */
function copyInto(bytes: Uint8Array, start: number, payload: Uint8Array): void {
  if (payload.length > SHORT_BYTES) return bytes.set(payload, start)
  for (let at = 0; at < payload.length; at += 1) bytes[start + at] = payload[at]!
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
}

/** A value of a number field, or an item of an array field, checked against its type. */
function checkNumber(field: FieldFacts, value: unknown): number | bigint {
  const { least, most } = field
  if (least === undefined || most === undefined) {
    if (typeof value === 'number') return value
    throw refusal(field, value)
  }
  let integer: number | bigint
  if (typeof least === 'bigint') {
    if (typeof value !== 'bigint' && !Number.isSafeInteger(value))
      throw new TypeError(
        `field '${field.name}' is ${field.type}: a bigint or safe integer, not ${describe(value)}`,
      )
    integer = BigInt(value as bigint | number)
  } else {
    if (typeof value !== 'number' || !Number.isInteger(value)) throw refusal(field, value)
    integer = value
  }
  if (integer < least || integer > most)
    throw new RangeError(`field '${field.name}' is ${field.type}, and ${integer} does not fit`)
  return integer
}

function refusal({ name, type }: StrandField, value: unknown): TypeError {
  return new TypeError(`field '${name}' is ${type}, and cannot store ${describe(value)}`)
}

function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 40))
  if (typeof value === 'object')
    return value === null ? 'null' : (value.constructor?.name ?? 'object')
  return String(value)
}
