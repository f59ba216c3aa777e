/** Entry point of the package for browsers. */

import { IndexedDbLog } from './indexedDbLog.ts'
import { EmbeddedStore, type StoreOptions } from './store.ts'

export * from './api.ts'

/** A tree in this page: stored in IndexedDB, in memory, or a replica of a server's tree. */
export class ElkynStore extends EmbeddedStore {
  constructor(options: StoreOptions) {
    super(options, (name) => new IndexedDbLog(name))
  }
}
