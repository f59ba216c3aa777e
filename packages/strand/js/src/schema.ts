/**
 * Field types, record schemas and the layout of a record in its slot (spec/strand-wire.md): version 5
 * aligns to at most 4 bytes, version 6 aligns naturally and has wide heap pointers.
 */

import { StrandHeaderError } from './errors.js'
import { FIELD_TYPES, type FieldType, type TypeFacts } from './types.js'

/** A layout version: 5 is what the original browsers' library reads, 6 has wide pointers. */
export type StrandVersion = 5 | 6

const TYPE_NAMES = Object.keys(FIELD_TYPES) as FieldType[]
const NULLABLE = 1
const ASCENDING = 2
const DESCENDING = 4
const FIELDS_MAX = 500

/** A named, typed field; `order` declares that its values are sorted. */
export interface StrandField {
  readonly name: string
  readonly type: FieldType
  readonly nullable: boolean
  readonly order: 'ascending' | 'descending' | null
}

/** A field as passed to `buildSchema`. */
export type FieldSpec = Pick<StrandField, 'name' | 'type'> & Partial<StrandField>

/** An ordered set of fields; plain data, so that it can be posted to a Worker. */
export interface StrandSchema {
  readonly fields: readonly StrandField[]
  readonly names: readonly string[]
}

/** The layout of a slot in one layout version. */
export interface SlotLayout {
  readonly version: StrandVersion
  /** Byte offset of each field in the slot. */
  readonly byteOffsets: readonly number[]
  /** For each field its bit in the null bitmap, -1 when it cannot be null. */
  readonly nullBits: readonly number[]
  readonly bitmapBytes: number
  /** Bytes of one slot. */
  readonly recordStride: number
}

/**
 * Build a schema from its fields, in slot order.
 * Throws TypeError for an unknown type or flag, RangeError for no field, too many or a name twice.
 */
export function buildSchema(fields: readonly FieldSpec[]): StrandSchema {
  if (fields.length === 0 || fields.length > FIELDS_MAX)
    throw new RangeError(`a schema has 1 to ${FIELDS_MAX} fields, not ${fields.length}`)
  const names = new Set<string>()
  const checked = fields.map(({ name, type, nullable = false, order = null }) => {
    if (typeof name !== 'string' || name === '') throw new TypeError('a field needs a name')
    if (names.has(name)) throw new RangeError(`two fields are named '${name}'`)
    if (!Object.hasOwn(FIELD_TYPES, type))
      throw new TypeError(`field '${name}' has unknown type '${type}'; known: ${TYPE_NAMES.join()}`)
    if (order !== null && order !== 'ascending' && order !== 'descending')
      throw new TypeError(`field '${name}' is ordered 'ascending', 'descending' or null`)
    names.add(name)
    return Object.freeze({ name, type, nullable: Boolean(nullable), order })
  })
  return Object.freeze({ fields: Object.freeze(checked), names: Object.freeze([...names]) })
}

/** Lay the fields out in a slot as `version` prescribes. */
export function slotLayout(schema: StrandSchema, version: StrandVersion): SlotLayout {
  for (const field of schema.fields)
    if (field.order === 'descending' && version === 5)
      throw new TypeError(`field '${field.name}': version 5 knows no descending order`)
  const nullable = schema.fields.filter((field) => field.nullable).length
  const bitmapBytes = Math.ceil(nullable / 8)
  const byteOffsets: number[] = []
  let end = bitmapBytes
  for (const { type } of schema.fields) {
    const at = roundUp(end, alignOf(type, version))
    byteOffsets.push(at)
    end = at + widthOf(type, version)
  }
  const nullBits = nullBitsOf(schema.fields)
  return { version, byteOffsets, nullBits, bitmapBytes, recordStride: strideOf(end, version) }
}

/** FNV-1a 32 of the schema as `version` encodes it; names are not part of it. */
export function schemaFingerprint(schema: StrandSchema, version: StrandVersion = 6): number {
  return fnv1a(encodeSchema(schema, slotLayout(schema, version)))
}

/** The wire schema: u16 count, then type, flags and offset of each field. */
export function encodeSchema(schema: StrandSchema, layout: SlotLayout): Uint8Array {
  const bytes = new Uint8Array(2 + 4 * schema.fields.length)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, schema.fields.length, true)
  schema.fields.forEach((field, index) => {
    const at = 2 + 4 * index
    view.setUint8(at, FIELD_TYPES[field.type].tag)
    view.setUint8(at + 1, flagsOf(field))
    view.setUint16(at + 2, layout.byteOffsets[index]!, true)
  })
  return bytes
}

/** Decoded fields, whose names are not known yet, and their offsets. */
export interface DecodedSchema {
  readonly fields: readonly Omit<StrandField, 'name'>[]
  readonly byteOffsets: readonly number[]
}

/** Read a wire schema; throws StrandHeaderError for its length, a tag or a flag. */
export function decodeSchema(bytes: Uint8Array, version: StrandVersion): DecodedSchema {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const count = view.getUint16(0, true)
  if (bytes.length !== 2 + 4 * count || count === 0)
    throw new StrandHeaderError('schema-length', `${2 + 4 * count} bytes`, `${bytes.length} bytes`)
  const fields: Omit<StrandField, 'name'>[] = []
  const byteOffsets: number[] = []
  for (let at = 2; at < bytes.length; at += 4) {
    const type = TYPE_NAMES[view.getUint8(at)]
    if (type === undefined)
      throw new StrandHeaderError(
        'field',
        `a type tag from 0 to ${TYPE_NAMES.length - 1}`,
        String(view.getUint8(at)),
      )
    const flags = checkFlags(view.getUint8(at + 1), version)
    const order = flags & ASCENDING ? 'ascending' : flags & DESCENDING ? 'descending' : null
    fields.push({ type, nullable: (flags & NULLABLE) !== 0, order })
    byteOffsets.push(view.getUint16(at + 2, true))
  }
  return { fields, byteOffsets }
}

/** The layout that a header states; throws StrandHeaderError when fields overlap or miss the stride. */
export function statedLayout(
  { fields, byteOffsets }: DecodedSchema,
  version: StrandVersion,
  recordStride: number,
): SlotLayout {
  const bitmapBytes = Math.ceil(fields.filter((field) => field.nullable).length / 8)
  let end = bitmapBytes
  fields.forEach(({ type }, index) => {
    const offset = byteOffsets[index]!
    if (offset < end)
      throw new StrandHeaderError('stride', `a field at byte ${end} or later`, `byte ${offset}`)
    end = offset + widthOf(type, version)
  })
  const wanted = strideOf(end, version)
  if (recordStride !== wanted)
    throw new StrandHeaderError('stride', `stride ${wanted}`, String(recordStride))
  return { version, byteOffsets, nullBits: nullBitsOf(fields), bitmapBytes, recordStride }
}

/** What a type is, apart from its name. */
export function factsOf(type: FieldType): TypeFacts {
  return FIELD_TYPES[type]
}

/** Whether the slot holds a pointer to a payload in the heap. */
export function isHeap(type: FieldType): boolean {
  const { kind } = FIELD_TYPES[type]
  return kind === 'text' || kind === 'json' || kind === 'bytes' || kind === 'array'
}

/** Alignment of a payload in the heap: items in v5, cache lines in v6, none for text. */
export function heapAlign(type: FieldType, version: StrandVersion): number {
  const { kind, items } = factsOf(type)
  if (kind !== 'bytes' && kind !== 'array') return 1
  return version === 6 ? 64 : items.BYTES_PER_ELEMENT
}

/** The 32-bit FNV-1a hash (RFC 9923). */
export function fnv1a(bytes: Uint8Array): number {
  let hash = 0x811c9dc5
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193)
  return hash >>> 0
}

function widthOf(type: FieldType, version: StrandVersion): number {
  if (isHeap(type)) return version === 6 ? 16 : 6
  return FIELD_TYPES[type].items.BYTES_PER_ELEMENT
}

function alignOf(type: FieldType, version: StrandVersion): number {
  return Math.min(widthOf(type, version), version === 6 ? 8 : 4)
}

function strideOf(end: number, version: StrandVersion): number {
  return roundUp(end, version === 6 ? 8 : 4)
}

function nullBitsOf(fields: readonly { nullable: boolean }[]): number[] {
  let bits = 0
  return fields.map(({ nullable }) => (nullable ? bits++ : -1))
}

function flagsOf({ nullable, order }: StrandField): number {
  const sorted = order === 'ascending' ? ASCENDING : order === 'descending' ? DESCENDING : 0
  return (nullable ? NULLABLE : 0) | sorted
}

function checkFlags(flags: number, version: StrandVersion): number {
  const known = NULLABLE | ASCENDING | (version === 6 ? DESCENDING : 0)
  const both = ASCENDING | DESCENDING
  if ((flags & ~known) !== 0 || (flags & both) === both)
    throw new StrandHeaderError('field', `flags out of ${known} for version ${version}`, `${flags}`)
  return flags
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple
}
