/** A log in the browser's IndexedDB: one object store, entries in the order of their numbers. */

import { ElkynError } from './errors'
import type { Entry, Log } from './log'

const ENTRIES = 'entries'

export class IndexedDbLog implements Log {
  private database: IDBDatabase | null = null

  constructor(private readonly name: string) {}

  async load(): Promise<Entry[]> {
    const opening = indexedDB.open(this.name, 1)
    opening.onupgradeneeded = () =>
      opening.result.createObjectStore(ENTRIES, { autoIncrement: true })
    this.database = await settled(opening, this.name)
    const reading = this.database.transaction(ENTRIES).objectStore(ENTRIES).getAll()
    return settled(reading as IDBRequest<Entry[]>, this.name)
  }

  append(entry: Entry): Promise<void> {
    return this.change((entries) => entries.add(entry))
  }

  compact(entry: Entry): Promise<void> {
    return this.change((entries) => {
      entries.clear()
      entries.add(entry)
    })
  }

  close(): void {
    this.database?.close()
    this.database = null
  }

  private change(body: (entries: IDBObjectStore) => void): Promise<void> {
    const { database } = this
    if (!database) return Promise.reject(new ElkynError(`${this.name} is not open`))
    return new Promise((resolve, reject) => {
      const transaction = database.transaction(ENTRIES, 'readwrite', { durability: 'strict' })
      transaction.oncomplete = () => resolve()
      transaction.onabort = () => reject(failure(this.name, transaction.error))
      body(transaction.objectStore(ENTRIES))
    })
  }
}

function settled<T>(request: IDBRequest<T>, name: string): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(failure(name, request.error))
  })
}

function failure(name: string, cause: DOMException | null): ElkynError {
  return new ElkynError(`the browser's database ${name} failed: ${cause?.message}`, { cause })
}
