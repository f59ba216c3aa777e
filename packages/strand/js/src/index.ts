/**
 * Typed records over SharedArrayBuffer, in the byte layout of `sennit-strand` (spec/strand-wire.md).
 * Layering: errors, schema <- header <- words, waiting <- producer, consumer <- encoder, cursor,
 * filters <- writer, view <- frames <- bridge <- transports. Nothing else is public.
 */

export type { Start } from './consumer'
export { RecordCursor } from './cursor'
export type { StrandRecord } from './encoder'
export * from './errors'
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
} from './filters'
export {
  computeStrandMap,
  initStrandHeader,
  readStrandHeader,
  type StrandMap,
  type StrandMapOptions,
  type StrandMetadata,
} from './header'
export {
  buildSchema,
  schemaFingerprint,
  slotLayout,
  type FieldSpec,
  type FieldType,
  type SlotLayout,
  type StrandField,
  type StrandSchema,
  type StrandVersion,
} from './schema'
export { StrandView, type ConsumerToken, type StrandStatus, type StrandViewOptions } from './view'
export {
  StrandWriter,
  type ClaimedHeap,
  type ClaimedSlot,
  type StrandWriterOptions,
  type WhenUnread,
} from './writer'
export { StrandBridge, type BridgeOptions } from './bridge'
export { FRAME_BYTES_MAX } from './frames'
export {
  BridgeConnectionError,
  bridgeFromFetch,
  bridgeFromWebSocket,
  type TransportOptions,
} from './transports'
