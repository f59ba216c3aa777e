/**
 * A log in the browser's IndexedDB, shared by all tabs: one object store, entries by number.
 *
 * A tab reads the entries that other tabs have added and adds its own in one transaction, so all
 * tabs apply all entries in one order. A channel notifies the other tabs of new entries.
 */

import { ElkynError } from './errors.ts'
import { COMPACT_ENTRIES, type Entry, type Log, type LogListener } from './log.ts'

const ENTRIES = 'entries'

interface Waiting {
  entry: Entry
  resolve(): void
  reject(error: Error): void
}

export class IndexedDbLog implements Log {
  readonly isShared = true
  private readonly name: string
  private readonly channel: BroadcastChannel
  private database: IDBDatabase | null = null
  private listener: LogListener | null = null
  private waiting: Waiting[] = []
  private isStale = false
  private last = 0
  private entries = 0
  private working: Promise<void> | null = null

  constructor(name: string) {
    this.name = `elkyn/${name}`
    this.channel = new BroadcastChannel(this.name)
  }

  async load(listener: LogListener): Promise<Entry[]> {
    this.listener = listener
    this.channel.onmessage = () => this.look()
    globalThis.addEventListener?.('pageshow', this.look)
    const opening = indexedDB.open(this.name, 1)
    opening.onupgradeneeded = () =>
      opening.result.createObjectStore(ENTRIES, { autoIncrement: true })
    const database = await settled(opening, this.name)
    database.onversionchange = () => database.close() // another page deletes it
    const reading = database.transaction(ENTRIES)
    const rows = rowsAfter(0, reading.objectStore(ENTRIES))
    await finished(reading, this.name)
    this.advance(rows())
    this.database = database // entries of other tabs are applied from here on, not twice
    if (this.isStale) this.work()
    return rows().map(([, entry]) => entry)
  }

  append(entry: Entry): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ entry, resolve, reject })
      this.work()
    })
  }

  async close(): Promise<void> {
    while (this.working) await this.working
    globalThis.removeEventListener?.('pageshow', this.look)
    this.channel.close()
    this.database?.close()
    this.database = null
  }

  /** Other tabs may have written. */
  private readonly look = () => {
    this.isStale = true
    this.work()
  }

  private work(): void {
    if (!this.database || this.working) return
    this.working = this.workOff().finally(() => {
      this.working = null
      if (this.waiting.length || this.isStale) this.work() // arrived while it was ending
    })
  }

  private async workOff(): Promise<void> {
    await null // writes of one synchronous block are stored in one transaction
    while (this.waiting.length || this.isStale) {
      this.isStale = false
      const batch = this.waiting.splice(0)
      try {
        await this.step(batch)
        for (const { resolve } of batch) resolve()
      } catch (error) {
        for (const { reject } of batch) reject(error as Error)
      }
    }
    if (this.entries > COMPACT_ENTRIES) await this.compact().catch(() => undefined) // the log stays long
  }

  /** Apply the entries of other tabs, and append `batch`. */
  private async step(batch: readonly Waiting[]): Promise<void> {
    const transaction = this.begin(batch.length ? 'readwrite' : 'readonly')
    const store = transaction.objectStore(ENTRIES)
    const added: [IDBRequest<IDBValidKey>, Entry][] = []
    const others = rowsAfter(this.last, store, () => {
      for (const { entry } of batch) added.push([store.add(entry), entry])
    })
    await finished(transaction, this.name)
    const own = added.map(([request, entry]): Row => [Number(request.result), entry])
    this.apply([...others(), ...own])
    if (batch.length) this.channel.postMessage(null)
  }

  private async compact(): Promise<void> {
    const transaction = this.begin('readwrite')
    const store = transaction.objectStore(ENTRIES)
    let added: IDBRequest<IDBValidKey> | null = null
    const others = rowsAfter(this.last, store, () => {
      this.apply(others())
      const snapshot = this.listener?.snapshot()
      if (!snapshot) return
      store.clear()
      added = store.add(snapshot)
    })
    await finished(transaction, this.name)
    const key = (added as IDBRequest<IDBValidKey> | null)?.result
    this.last = Number(key ?? this.last)
    this.entries = 1
    this.channel.postMessage(null)
  }

  private begin(mode: IDBTransactionMode): IDBTransaction {
    if (!this.database) throw new ElkynError(`the browser's database ${this.name} is not open`)
    return this.database.transaction(ENTRIES, mode, { durability: 'strict' })
  }

  private apply(rows: readonly Row[]): void {
    this.advance(rows)
    for (const [, entry] of rows) this.listener?.applied(entry)
  }

  private advance(rows: readonly Row[]): void {
    this.last = rows.at(-1)?.[0] ?? this.last
    this.entries += rows.length
  }
}

type Row = readonly [key: number, entry: Entry]

/** Read the rows after `last`, and call `then` when they are loaded. */
function rowsAfter(last: number, store: IDBObjectStore, then?: () => void): () => Row[] {
  const range = IDBKeyRange.lowerBound(last, true)
  const keys = store.getAllKeys(range)
  const entries = store.getAll(range) as IDBRequest<Entry[]>
  entries.onsuccess = () => then?.()
  return () => entries.result.map((entry, index) => [Number(keys.result[index]), entry])
}

function finished(transaction: IDBTransaction, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve()
    transaction.onabort = () => reject(failure(name, transaction.error))
  })
}

function settled<T>(request: IDBRequest<T>, name: string): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(failure(name, request.error))
  })
}

function failure(name: string, cause: DOMException | null): ElkynError {
  return new ElkynError(
    `the browser's database ${name} failed: ${cause?.message ?? 'a write was aborted'}`,
    { cause },
  )
}
