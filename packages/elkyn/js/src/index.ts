/** The package in Node. */

import { FileLog } from './fileLog.js'
import { EmbeddedStore, type StoreOptions } from './store.js'

export * from './api.js'

/** A tree in this process: kept in a folder, in memory, or a copy that follows a server. */
export class ElkynStore extends EmbeddedStore {
  constructor(options: StoreOptions) {
    super(options, (folder, sync) => new FileLog(folder, sync))
  }
}
