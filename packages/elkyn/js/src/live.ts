/**
 * The entry point `@sennit/elkyn/live`: live values without writes, WebSockets and a store.
 *
 * Layering: `stream` < `multicast`, `shared`, `follow` < `liveValues`.
 */

export { ElkynError, Offline, Refused } from './errors.ts'
export { type TokenSource } from './authorizedStream.ts'
export { type LiveConnection, type LiveOptions, type LiveValue, LiveValues } from './liveValues.ts'
export { multicast } from './multicast.ts'
export { serveStreams, sharedStreams } from './shared.ts'
export { type Connection, type OpenStream, openStream } from './stream.ts'
export { type Json } from './values.ts'
