/** Entry point of the package for Node. */

import { FileLog } from './fileLog.ts'
import { EmbeddedStore, type StoreOptions } from './store.ts'

export * from './api.ts'

/** A tree in this process: stored in a folder, in memory, or a replica of a server's tree. */
export class ElkynStore extends EmbeddedStore {
  constructor(options: StoreOptions) {
    super(options, (folder, sync) => new FileLog(folder, sync))
  }
}
