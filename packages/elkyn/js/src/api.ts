/**
 * Exports common to Node and browsers: `ElkynClient` talks to a server, a store is a local tree.
 *
 * Layering: `paths`, `values` < `overlay`, `tree`, `stream` < `queue`, `live`, `socket` < `client` <
 * `store` < `index` (Node), `browser`.
 */

export { ElkynClient, type ClientOptions, type QueryOptions } from './client.js'
export { BadValue, Closed, ElkynError, Offline, Refused } from './errors.js'
export { type TokenSource } from './follow.js'
export { type QueueStorage } from './keptWrites.js'
export { type Entry, type Log } from './log.js'
export { serveStreams, sharedStreams } from './shared.js'
export { socketStreams } from './socket.js'
export { type Mode, type StoreOptions } from './store.js'
export {
  type OpenStream,
  openStream,
  type StreamEvent,
  type StreamListener,
  type StreamRequest,
} from './stream.js'
export { type Callback, type EventType } from './tree.js'
export { type Json, type Value } from './values.js'
