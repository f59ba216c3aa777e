/**
 * Exports common to Node and browsers: `ElkynClient` talks to a server, a store is a local tree.
 *
 * Layering: `paths`, `values` < `overlay`, `tree`, `stream` < `queue`, `localView`, `socket` <
 * `client` < `store` < `index` (Node), `browser`.
 */

export { ElkynClient, type ClientOptions, type QueryOptions } from './client.ts'
export { BadValue, Closed, ElkynError, Offline, Refused } from './errors.ts'
export { type TokenSource } from './authorizedStream.ts'
export { type QueueStorage } from './storedWrites.ts'
export { type Entry, type Log } from './log.ts'
export { serveStreams, sharedStreams } from './shared.ts'
export { socketStreams } from './socket.ts'
export { type Mode, type StoreOptions } from './store.ts'
export {
  type Connection,
  type OpenStream,
  openStream,
  type StreamEvent,
  type StreamHandle,
  type StreamListener,
  type StreamRequest,
} from './stream.ts'
export { type Callback, type EventType } from './tree.ts'
export { type Json, type Value } from './values.ts'
