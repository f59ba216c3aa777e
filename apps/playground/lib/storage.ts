/** What the node stores, from `/api/stats/storage` and `/api/views`. */

/** What one dataset stores; bytes of shards. */
export interface DatasetUsage {
  id: string
  name: string
  owner: string
  rows: number
  /** Of the newest version. */
  bytes: number
  /** Of the distinct shards of all kept versions. */
  storedBytes: number
  /** Of those that only versions without a tag need: what their expiry gives back. */
  reclaimableBytes: number
  shards: number
  smallShards: number
  versions: number
}

/** Where a task of maintenance is; times in Unix seconds, 0 if there is none. */
export interface TaskState {
  task: string
  periodSeconds: number
  running: boolean
  nextAt: number
  finishedAt: number
  changed: number
  skipped: number
  problem?: string | null
}

/** The limits of a user; 0 is no limit. */
export interface UserQuota {
  user: string
  diskBytes: number
  memoryBytes: number
  statements: number
  statementsPerMinute: number
}

/** The body of `/api/stats/storage`; what follows `quota` is for admins. */
export interface StorageReport {
  datasets: DatasetUsage[]
  storedBytes: number
  reclaimableBytes: number
  smallShards: number
  maintenance: TaskState[]
  quota: UserQuota | null
  objects?: {
    shards: Amount
    others: Amount
    retired: number
    quarantined: number
  }
  sharedBytes?: number
  disk?: {
    objectBytes: number
    objects: number
    quotaBytes: number | null
    freeBytes: number
    reservedBytes: number
  }
  quotas?: (UserQuota & { storedBytes: number; queuedBytes: number })[]
}

interface Amount {
  objects: number
  bytes: number
}

/** A view; without text where a policy hides a part of what it reads. */
export interface ViewInfo {
  id: string
  name: string
  owner: string
  sql: string
  damaged?: string | null
}

/** Datasets in the order of what they store, the largest first. */
export function bySize(datasets: readonly DatasetUsage[]): DatasetUsage[] {
  return [...datasets].sort((a, b) => b.storedBytes - a.storedBytes || a.name.localeCompare(b.name))
}

/** A quota in words: `at most 2 statements at once`. */
export function limitsOf(quota: UserQuota, formatBytes: (bytes: number) => string): string[] {
  return [
    quota.diskBytes > 0 ? `${formatBytes(quota.diskBytes)} stored` : '',
    quota.memoryBytes > 0 ? `${formatBytes(quota.memoryBytes)} of memory` : '',
    quota.statements > 0 ? `${quota.statements} statements at once` : '',
    quota.statementsPerMinute > 0 ? `${quota.statementsPerMinute} statements a minute` : '',
  ].filter((limit) => limit !== '')
}
