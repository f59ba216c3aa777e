/** The remote workers of the node, from `/api/workers`. */

import { json } from './api'

export interface ListedWorker {
  id: string
  token: string
  kind: string
  engine: string
  threads: number
  state: string
  running: number
  finished: number
  failed: number
}

export interface WorkersReport {
  trust: 'trust' | 'sample'
  /** Of the tasks that the node runs itself too, from 0 to 1. */
  sampleShare: number
  workers: ListedWorker[]
  /** `doubtedJobs` had ended with rows of a worker that was found to be wrong later. */
  excluded: { token: string; reason: string; doubtedJobs: string[] }[]
}

export const workersApi = {
  show: (signal?: AbortSignal) => json<WorkersReport>('GET', '/api/workers', undefined, signal),
  join: () => json<{ token: string; expiresAt: number }>('POST', '/api/workers/join'),
}

/** How results are checked, in a sentence. */
export function trustText({ trust, sampleShare }: WorkersReport): string {
  if (trust === 'trust') return 'Results are checked for their form alone: workers are trusted.'
  const percent = Number((sampleShare * 100).toFixed(2))
  return `The node computes ${percent} % of the tasks itself too, chosen at random, and compares the rows.`
}
