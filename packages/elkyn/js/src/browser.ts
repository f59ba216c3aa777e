/** The package in browsers. */

import { IndexedDbLog } from './indexedDbLog.js'
import { EmbeddedStore, type StoreOptions } from './store.js'

export * from './api.js'

/** A tree in this page: kept in IndexedDB, in memory, or a copy that follows a server. */
export class ElkynStore extends EmbeddedStore {
  constructor(options: StoreOptions) {
    super(options, (name) => new IndexedDbLog(name))
  }
}
