/** The 4096-byte header: geometry, schema and metadata of a ring (spec/strand-wire.md). */

import { StrandHeaderError } from './errors.js'
import { renameOptions, requireKnownOptions } from './options.js'
import {
  buildSchema,
  decodeSchema,
  encodeSchema,
  fnv1a,
  slotLayout,
  statedLayout,
  type SlotLayout,
  type StrandSchema,
  type StrandVersion,
} from './schema.js'

export const HEADER_BYTES = 4096
export const MAGIC = 0x5354524e
export const EXTENSION_MAGIC = 0x53454e36
export const EXTENSION_AT = 3072
const SCHEMA_LENGTH_AT = 88
const SCHEMA_AT = 92
const V5_CONSUMERS_AT = 56
const VACANT = 0x7fffffff
const CAPACITY_MAX = 2 ** 31

/** The metadata of a ring: the creator's own keys, and the field names. */
export interface StrandMetadata {
  readonly columns: readonly string[]
  readonly [key: string]: unknown
}

/** The static part of a ring's header: geometry, schema, metadata. */
export interface StrandMap {
  readonly version: StrandVersion
  readonly schema: StrandSchema
  readonly layout: SlotLayout
  /** Slots of the ring, a power of two. */
  readonly indexCapacity: number
  /** Bytes for strings, arrays and payloads, a power of two. */
  readonly heapCapacity: number
  /** Bytes of one slot. */
  readonly recordStride: number
  readonly indexStart: number
  readonly heapStart: number
  /** Bytes of the whole ring. */
  readonly totalBytes: number
  readonly fingerprint: number
  readonly metadata: StrandMetadata
  /** The query that the stream is the result of, any JSON value; null when it is not stated. */
  readonly query: unknown
  /** How many records are expected; null when it is not stated. */
  readonly estimatedRecords: number | null
  /** The same under the names of the original library. */
  readonly total_bytes: number
  readonly index_capacity: number
  readonly heap_capacity: number
  readonly record_stride: number
  readonly estimated_records: number | null
  readonly schema_fingerprint: number
}

/** The options of `computeStrandMap`; capacities must be powers of two. */
export interface StrandMapOptions {
  schema: StrandSchema
  /** The same as `indexCapacity`. */
  index_capacity?: number
  /** The same as `heapCapacity`. */
  heap_capacity?: number
  /** The same as `estimatedRecords`. */
  estimated_records?: number
  /** Slots. */
  indexCapacity?: number
  /** Bytes for strings, arrays and payloads; one record may use half of them. */
  heapCapacity?: number
  version?: StrandVersion
  query?: unknown
  estimatedRecords?: number
  /** JSON keys of your own; `intern` is the list of strings that `utf8_ref` fields refer to. */
  metadata?: Readonly<Record<string, unknown>>
}

const MAP_OPTIONS = [
  'schema',
  'indexCapacity',
  'heapCapacity',
  'version',
  'query',
  'estimatedRecords',
  'metadata',
] as const

const SNAKE_CASE = {
  index_capacity: 'indexCapacity',
  heap_capacity: 'heapCapacity',
  estimated_records: 'estimatedRecords',
} as const

/**
 * Compute a ring's geometry. RangeError for invalid parameters, TypeError for an unknown option.
 */
export function computeStrandMap(parameters: StrandMapOptions): StrandMap {
  const options = renameOptions(parameters, SNAKE_CASE)
  requireKnownOptions('computeStrandMap', options, MAP_OPTIONS)
  const { schema, indexCapacity = 65536, heapCapacity = 2 ** 24, version = 6 } = options
  if (version !== 5 && version !== 6)
    throw new RangeError(`a ring has layout version 5 or 6, not ${String(version)}`)
  checkCapacity('indexCapacity', indexCapacity, 1)
  checkCapacity('heapCapacity', heapCapacity, version === 6 ? 128 : 8)
  const metadata: Record<string, unknown> = { ...options.metadata }
  if (options.query !== undefined) metadata['query'] = options.query
  if (options.estimatedRecords !== undefined) {
    if (!Number.isSafeInteger(options.estimatedRecords) || options.estimatedRecords < 0)
      throw new RangeError(`estimatedRecords is a count, not ${options.estimatedRecords}`)
    metadata['estimated_records'] = options.estimatedRecords
  }
  metadata['columns'] = [...schema.names]
  const map = mapOf(
    schema,
    slotLayout(schema, version),
    indexCapacity,
    heapCapacity,
    metadata as StrandMetadata,
  )
  const end = staticBytes(map)
  if (end > EXTENSION_AT)
    throw new RangeError(
      `schema and metadata end at byte ${end}, beyond the limit of ${EXTENSION_AT}: shorten them`,
    )
  return map
}

/** Write a new ring's header, its magic last; RangeError for a buffer that is too small. */
export function initStrandHeader(buffer: ArrayBufferLike, map: StrandMap): void {
  if (buffer.byteLength < map.totalBytes)
    throw new RangeError(`this ring needs ${map.totalBytes} bytes, not ${buffer.byteLength}`)
  requireLittleEndian()
  new Uint8Array(buffer, 0, HEADER_BYTES).set(headerBytes(map))
  Atomics.store(new Int32Array(buffer, 0, 1), 0, MAGIC) // last: publishes the header
}

/**
 * Check a header and decode it. The checks are made in the order of `HeaderCheck`.
 * `segmentBytes` is the size of the whole ring where `buffer` holds only its beginning.
 */
export function readStrandHeader(
  buffer: ArrayBufferLike | Uint8Array,
  segmentBytes = buffer.byteLength,
): StrandMap {
  requireLittleEndian()
  if (segmentBytes < HEADER_BYTES || buffer.byteLength < HEADER_BYTES)
    throw new StrandHeaderError('size', `${HEADER_BYTES} bytes or more`, `${segmentBytes}`)
  const head = new Uint8Array(HEADER_BYTES) // a copy, so that the checked bytes cannot change
  const whole = buffer instanceof Uint8Array ? buffer : new Uint8Array(buffer)
  head.set(whole.subarray(0, HEADER_BYTES))
  const words = new DataView(head.buffer)
  const word = (at: number) => words.getUint32(at, true)
  if (word(0) !== MAGIC) throw new StrandHeaderError('magic', hex(MAGIC), hex(word(0)))
  const version = word(4)
  if (version !== 5 && version !== 6)
    throw new StrandHeaderError('version', 'layout version 5 or 6', String(version))
  const checksum = fnv1a(head.subarray(0, 24))
  if (word(24) !== checksum) throw new StrandHeaderError('checksum', hex(checksum), hex(word(24)))
  const schemaBytes = word(SCHEMA_LENGTH_AT)
  // A plain v5 header has no extension block, so its metadata may use those bytes.
  const plain = version === 5 && word(EXTENSION_AT) !== EXTENSION_MAGIC
  const end = plain ? HEADER_BYTES : EXTENSION_AT
  if (schemaBytes < 2 || SCHEMA_AT + schemaBytes + 4 > end)
    throw new StrandHeaderError('schema-length', 'a schema that fits', `${schemaBytes} bytes`)
  const encoded = head.subarray(SCHEMA_AT, SCHEMA_AT + schemaBytes)
  const decoded = decodeSchema(encoded, version)
  const fingerprint = fnv1a(encoded)
  if (word(8) !== fingerprint)
    throw new StrandHeaderError('fingerprint', hex(fingerprint), hex(word(8)))
  const layout = statedLayout(decoded, version, word(12))
  checkGeometry(word(12), word(16), word(20), segmentBytes)
  const metadata = readMetadata(head, SCHEMA_AT + schemaBytes, decoded.fields.length, end)
  const fields = decoded.fields.map((field, at) => ({ ...field, name: metadata.columns[at]! }))
  return mapOf(buildSchema(fields), layout, word(16), word(20), metadata)
}

/** Bytes from the start of the header to the end of the metadata. */
export function staticBytes(map: StrandMap): number {
  return SCHEMA_AT + 2 + 4 * map.schema.fields.length + 4 + encodeMetadata(map).length
}

/** The same, read from a header that was checked. */
export function staticBytesOf(buffer: ArrayBufferLike): number {
  const words = new DataView(buffer, 0, HEADER_BYTES)
  const at = SCHEMA_AT + words.getUint32(SCHEMA_LENGTH_AT, true)
  return at + 4 + words.getUint32(at, true)
}

function headerBytes(map: StrandMap): Uint8Array {
  const head = new Uint8Array(HEADER_BYTES)
  const words = new DataView(head.buffer)
  const encoded = encodeSchema(map.schema, map.layout)
  const statics = [MAGIC, map.version, map.fingerprint, map.recordStride]
  statics.push(map.indexCapacity, map.heapCapacity)
  statics.forEach((value, at) => words.setUint32(4 * at, value, true))
  words.setUint32(24, fnv1a(head.subarray(0, 24)), true)
  words.setUint32(0, 0, true) // stored last, by initStrandHeader
  for (let at = V5_CONSUMERS_AT; at < SCHEMA_LENGTH_AT; at += 4) words.setInt32(at, VACANT, true)
  words.setUint32(SCHEMA_LENGTH_AT, encoded.length, true)
  head.set(encoded, SCHEMA_AT)
  const metadata = encodeMetadata(map)
  const at = SCHEMA_AT + encoded.length
  words.setUint32(at, metadata.length, true)
  head.set(metadata, at + 4)
  words.setUint32(EXTENSION_AT, EXTENSION_MAGIC, true)
  return head
}

function mapOf(
  schema: StrandSchema,
  layout: SlotLayout,
  indexCapacity: number,
  heapCapacity: number,
  metadata: StrandMetadata,
): StrandMap {
  const { version, recordStride } = layout
  const heapStart = HEADER_BYTES + indexCapacity * recordStride
  const estimate = metadata['estimated_records']
  const totalBytes = heapStart + heapCapacity
  const fingerprint = fnv1a(encodeSchema(schema, layout))
  const estimatedRecords = typeof estimate === 'number' ? estimate : null
  return {
    version,
    schema,
    layout,
    indexCapacity,
    heapCapacity,
    recordStride,
    indexStart: HEADER_BYTES,
    heapStart,
    totalBytes,
    fingerprint,
    metadata,
    query: metadata['query'] ?? null,
    estimatedRecords,
    total_bytes: totalBytes,
    index_capacity: indexCapacity,
    heap_capacity: heapCapacity,
    record_stride: recordStride,
    estimated_records: estimatedRecords,
    schema_fingerprint: fingerprint,
  }
}

function readMetadata(head: Uint8Array, at: number, columns: number, end: number): StrandMetadata {
  const size = new DataView(head.buffer).getUint32(at, true)
  if (at + 4 + size > end)
    throw new StrandHeaderError('metadata', `an end before ${end}`, `${size} bytes`)
  let metadata: unknown
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
    metadata = JSON.parse(text.decode(head.subarray(at + 4, at + 4 + size)))
  } catch (error) {
    throw new StrandHeaderError('metadata', 'a JSON object', String(error))
  }
  const names: unknown =
    typeof metadata === 'object' && metadata !== null && 'columns' in metadata
      ? metadata.columns
      : null
  const named =
    Array.isArray(names) &&
    names.length === columns &&
    new Set(names).size === columns &&
    names.every((name) => typeof name === 'string' && name !== '')
  if (!named)
    throw new StrandHeaderError(
      'metadata',
      `"columns" with ${columns} different names`,
      String(JSON.stringify(names)),
    )
  return metadata as StrandMetadata
}

function checkGeometry(stride: number, index: number, heap: number, segmentBytes: number): void {
  for (const [what, value] of [
    ['index', index],
    ['heap', heap],
  ] as const)
    if (!isPower(value) || value > CAPACITY_MAX)
      throw new StrandHeaderError('geometry', `${what} capacity a power of two`, String(value))
  const total = HEADER_BYTES + stride * index + heap
  if (total > segmentBytes)
    throw new StrandHeaderError('geometry', `a ring of ${total} bytes`, `${segmentBytes}`)
}

function checkCapacity(what: string, value: number, least: number): void {
  if (!Number.isInteger(value) || !isPower(value) || value < least || value > CAPACITY_MAX)
    throw new RangeError(`${what} must be a power of two from ${least} to 2**31, not ${value}`)
}

function encodeMetadata(map: StrandMap): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(map.metadata))
}

function isPower(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value))
}

function hex(value: number): string {
  return `0x${value.toString(16)}`
}

function requireLittleEndian(): void {
  if (new Uint8Array(new Uint32Array([1]).buffer)[0] !== 1)
    throw new Error('a ring is little-endian, and this machine is not')
}
