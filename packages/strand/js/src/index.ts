/**
 * Typed records over SharedArrayBuffer, in the byte layout of `sennit-strand` (spec/strand-wire.md).
 * Layering: errors, types <- schema <- header <- words, waiting <- producer, consumer <- encoder, cursor,
 * filters <- writer, view <- frames <- bridge <- transports. Nothing else is public.
 */

export type { Start } from './consumer.js'
export { RecordCursor } from './cursor.js'
export type { StrandRecord } from './encoder.js'
export * from './errors.js'
export {
  between,
  eq,
  forEachSet,
  intersect,
  oneOf,
  popcount,
  type Bitset,
  type Predicate,
  type Range,
} from './filters.js'
export {
  computeStrandMap,
  initStrandHeader,
  readStrandHeader,
  type StrandMap,
  type StrandMapOptions,
  type StrandMetadata,
} from './header.js'
export {
  buildSchema,
  schemaFingerprint,
  slotLayout,
  type FieldSpec,
  type SlotLayout,
  type StrandField,
  type StrandSchema,
  type StrandVersion,
} from './schema.js'
export type { FieldType } from './types.js'
export {
  StrandView,
  type ConsumerToken,
  type StrandStatus,
  type StrandViewOptions,
} from './view.js'
export {
  StrandWriter,
  type ClaimedHeap,
  type ClaimedSlot,
  type StrandWriterOptions,
  type WhenUnread,
} from './writer.js'
export { StrandBridge, type BridgeOptions } from './bridge.js'
export { FRAME_BYTES_MAX } from './frames.js'
export {
  BridgeConnectionError,
  bridgeFromFetch,
  bridgeFromWebSocket,
  type TransportOptions,
} from './transports.js'
