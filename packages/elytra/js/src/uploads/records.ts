/** The unfinished uploads of this browser or process, so that they can go on after a reload. */

import type { Fingerprint } from './fingerprint.ts'
import type { StartRequest } from './session.ts'

/** One unfinished upload. */
export interface UploadRecord {
  uploadId: string
  /** The node's address; empty for the page's own origin. */
  url: string
  file: Fingerprint
  name: string
  mode: NonNullable<StartRequest['mode']>
  options: Record<string, unknown>
  startedAtMs: number
  /** Whether the node was asked to complete it: it may have done so without our hearing of it. */
  completing: boolean
  /** Where the file is, if the browser has file handles. */
  handle: FileSystemFileHandle | null
}

/** A store of unfinished uploads, by upload id. It holds at most `RECORDS_MAX`. */
export interface UploadRecords {
  /** Whether they outlive the page or process. */
  readonly durable: boolean
  list(): Promise<UploadRecord[]>
  put(record: UploadRecord): Promise<void>
  remove(uploadId: string): Promise<void>
}

/** The node deletes an upload without progress after a day, so older ones are of no use. */
export const RECORDS_MAX = 100
/** Records that no visit asked the node about: longer than any node is likely to hold an upload. */
export const RECORD_AGE_MAX_MS = 30 * 24 * 3600 * 1000

/** Which records exceed the limits, at `nowMs`. */
export function surplusRecords(records: readonly UploadRecord[], nowMs: number): UploadRecord[] {
  const newestFirst = [...records].sort((a, b) => b.startedAtMs - a.startedAtMs)
  return newestFirst.filter(
    (record, at) => at >= RECORDS_MAX || nowMs - record.startedAtMs > RECORD_AGE_MAX_MS,
  )
}

/** Records that end with the page or process. */
export function memoryRecords(): UploadRecords {
  const records = new Map<string, UploadRecord>()
  return {
    durable: false,
    list: async () => [...records.values()],
    put: async (record) => {
      records.set(record.uploadId, record)
      for (const each of surplusRecords([...records.values()], Date.now()))
        records.delete(each.uploadId)
    },
    remove: async (uploadId) => void records.delete(uploadId),
  }
}
