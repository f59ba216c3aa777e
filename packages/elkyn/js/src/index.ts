/**
 * Elkyn in JavaScript: `ElkynClient` talks to a server, `ElkynStore` is a tree of its own.
 *
 * Layering: `paths`, `values` < `tree`, `stream` < `queue`, `live` < `client` < `store`.
 */

export { ElkynClient, type ClientOptions, type QueryOptions } from './client'
export { BadValue, Closed, ElkynError, Offline, Refused } from './errors'
export { FileLog } from './fileLog'
export { IndexedDbLog } from './indexedDbLog'
export { type Entry, type Log } from './log'
export { type QueueStorage } from './queue'
export { serveStreams, sharedStreams } from './shared'
export { ElkynStore, type Mode, type StoreOptions } from './store'
export { type OpenStream, openStream, type StreamEvent } from './stream'
export { type Callback, type EventType } from './tree'
export { type Json, type Value } from './values'
