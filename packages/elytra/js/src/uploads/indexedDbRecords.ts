/** Records of unfinished uploads in IndexedDB, which stores file handles too. */

import { surplusRecords, type UploadRecord, type UploadRecords } from './records.ts'

const VERSION = 1
const STORE = 'uploads'

/**
 * The records of this origin, shared by its tabs.
 *
 * The database is opened for each call: an open connection would block a later version of this
 * package from changing its layout in another tab.
 */
export function indexedDbRecords(name = 'sennit-uploads'): UploadRecords {
  return {
    durable: true,
    list: () =>
      withStore(name, 'readonly', (store) => store.getAll() as IDBRequest<UploadRecord[]>),
    put: (record) =>
      withStore(name, 'readwrite', (store) => {
        const written = store.put(record)
        const all = store.getAll() as IDBRequest<UploadRecord[]>
        all.onsuccess = () => {
          for (const each of surplusRecords(all.result, Date.now())) store.delete(each.uploadId)
        }
        return written
      }).then(() => undefined),
    remove: (uploadId) => withStore(name, 'readwrite', (store) => store.delete(uploadId)),
  }
}

/** Run one transaction; resolves with the result of its request once it is committed. */
async function withStore<T>(
  name: string,
  mode: IDBTransactionMode,
  action: (store: IDBObjectStore) => IDBRequest<T>,
): Promise<T> {
  const database = await open(name)
  try {
    return await new Promise<T>((resolve, reject) => {
      const transaction = database.transaction(STORE, mode)
      const request = action(transaction.objectStore(STORE))
      transaction.oncomplete = () => resolve(request.result)
      transaction.onabort = () => reject(transaction.error)
    })
  } finally {
    database.close()
  }
}

function open(name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, VERSION)
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'uploadId' })
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
    request.onblocked = () => reject(new Error('another tab blocks the database'))
  })
}
