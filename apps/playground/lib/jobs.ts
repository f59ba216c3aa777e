/** Jobs for the pages, from the live tree. */

import type { JobInfo, Progress, TaskInfo } from './records'

export type JobState = JobInfo['state']

/** A job with its tasks, as `/jobs/{id}` of the tree holds them. */
export interface LiveJob extends JobInfo {
  tasks: TaskInfo[]
}

const ENDED: readonly string[] = ['done', 'failed', 'cancelled']

/** Whether a job has ended. */
export function hasEnded(job: Pick<JobInfo, 'state'>): boolean {
  return ENDED.includes(job.state)
}

/** Every job of the tree, newest first. */
export function jobsOf(tree: unknown): LiveJob[] {
  return records(tree)
    .filter((value) => typeof value.state === 'string')
    .map((value) => ({ ...(value as unknown as JobInfo), tasks: tasksOf(value.tasks) }))
    .sort((a, b) => compare(b.createdAt, a.createdAt) || compare(b.id, a.id))
}

/** The tasks of a job in shard order. */
function tasksOf(tree: unknown): TaskInfo[] {
  if (typeof tree !== 'object' || tree === null) return []
  return Object.entries(tree)
    .filter(([, task]) => typeof task === 'object' && task !== null)
    .sort(([a], [b]) => compare(a, b))
    .map(([key, task]) => ({ ...task, id: (task as TaskInfo).id ?? key }))
}

/** Tasks that are done and tasks in all, as the tasks themselves say where they are known. */
export function tasksOfJob(
  job: Pick<LiveJob, 'state' | 'progress' | 'tasks'>,
): { done: number; total: number } | null {
  const done = job.tasks.filter(({ state }) => state === 'done').length
  const total = job.progress?.total ?? job.tasks.length
  if (job.state === 'done') return total > 0 ? { done: total, total } : null
  return total > 0
    ? { done: Math.min(total, Math.max(done, job.progress?.done ?? 0)), total }
    : null
}

/** A job's progress as a fraction, or null if unknown. Never above 1, and 1 only when done. */
export function fractionOf(job: Pick<LiveJob, 'state' | 'progress' | 'tasks'>): number | null {
  if (job.state === 'done') return 1
  const progress = job.progress
  if (!progress) return null
  const tasks = tasksOfJob(job)
  const parts = [ratio(progress.bytesDone, progress.bytesTotal), ratio(tasks?.done, tasks?.total)]
  const known = parts.filter((part) => part !== null)
  return known.length > 0 ? Math.min(0.99, Math.max(...known)) : null
}

function ratio(done: number | null | undefined, total: number | null | undefined): number | null {
  return total ? Math.min(1, (done ?? 0) / total) : null
}

/** What a job is doing, in a word or two. */
export function phaseOf(job: Pick<JobInfo, 'state' | 'progress'>): string {
  const words: Record<string, string> = {
    queued: 'Waiting for a place',
    running: 'Running',
    merging: 'Merging partial results',
    done: 'Done',
    failed: 'Failed',
    cancelled: 'Cancelled',
  }
  const phase = (job.progress as Progress | null)?.phase
  if (job.state === 'running' && phase)
    return phase.charAt(0).toUpperCase() + phase.slice(1).replaceAll('-', ' ')
  return words[job.state] ?? job.state
}

/** The dataset a job has made, if it has made one. */
export function datasetOf(job: Pick<JobInfo, 'kind' | 'result'>): string | null {
  const dataset = job.result?.dataset ?? job.result?.datasetId
  return typeof dataset === 'string' ? dataset : null
}

/** The dataset a plan reads: the source of the scan at its bottom. */
export function sourceOf(plan: unknown): string | null {
  for (
    let node = plan;
    typeof node === 'object' && node !== null;
    node = (node as { input?: unknown }).input
  ) {
    const { source } = node as { source?: { dataset?: unknown } }
    if (typeof source?.dataset === 'string') return source.dataset
  }
  return null
}

/** What a page says of a job whose rows came from a worker that was found to be wrong later. */
export interface CheckText {
  state: string
  isGood: boolean
  text: string
}

const CHECKS: Record<string, string> = {
  doubted: 'Rows of it came from a worker that was found to be wrong. It is computed again soon.',
  running: 'Rows of it came from a worker that was found to be wrong. It is being computed again.',
  confirmed: 'A worker was found to be wrong, so it was computed again: the rows are the same.',
  corrected:
    'A worker had returned wrong rows. It was computed again, and the rows below are the right ones.',
  failed: 'Rows of it came from a worker that was found to be wrong, and may be wrong.',
}

/** The check of a job's rows in words; null for jobs without one. */
export function checkOf(job: Pick<JobInfo, 'check'>): CheckText | null {
  const check = job.check
  if (!check || typeof check.state !== 'string') return null
  const parts = [CHECKS[check.state] ?? check.state]
  if (typeof check.reason === 'string') parts.push(sentence(check.reason) + '.')
  if (Array.isArray(check.savedAs))
    parts.push(`Datasets that were saved with the wrong rows: ${check.savedAs.join(', ')}.`)
  const isGood = check.state === 'confirmed' || check.state === 'corrected'
  return { state: check.state, isGood: isGood && !check.savedAs, text: parts.join(' ') }
}

/** What a job is called; `names` knows datasets by id, `files` files by the id of the job that reads them. */
export function titleOf(
  job: Pick<JobInfo, 'id' | 'kind' | 'plan' | 'result'>,
  names: ReadonlyMap<string, string>,
  files: ReadonlyMap<string, string>,
): string {
  if (job.kind === 'ingest') {
    const file = job.result?.file // there from the start, so that a failed one has a name too
    const name =
      files.get(job.id) ??
      names.get(datasetOf(job) ?? '') ??
      (typeof file === 'string' ? file : undefined)
    return name ? `Read in ${name}` : 'Read in an upload'
  }
  if (job.kind === 'maintenance') {
    const task = job.result?.task
    return typeof task === 'string' ? `Maintenance: ${task}` : 'Maintenance'
  }
  const name = names.get(sourceOf(job.plan) ?? '')
  return name ? `Pipeline over ${name}` : 'Pipeline'
}

const KINDS: Record<string, string> = { ingest: 'Ingest', maintenance: 'Maintenance' }

/** The kind of a job in a word. */
export function kindOf(job: Pick<JobInfo, 'kind'>): string {
  return KINDS[job.kind] ?? 'Pipeline'
}

/** A stored error in words: what happened and what to do about it. */
export interface Trouble {
  title: string
  message: string
  hint: string | null
}

/** What an error code means, in a few words; null for codes that say too little. */
export function titleOfCode(code: string): string | null {
  return TITLES[code] ?? null
}

/** A message of the node as a sentence: its first word begins large, unless it is a name. */
export function sentence(message: string): string {
  return /^[a-z]+ /.test(message) ? message.charAt(0).toUpperCase() + message.slice(1) : message
}

const TITLES: Record<string, string> = {
  'memory-cap-exceeded': 'The memory cap was reached',
  'cap-too-small': 'The memory cap is too small for this work',
  'storage-full': 'The disk is full',
  'worker-lost': 'A worker was lost',
  'deadline-exceeded': 'It took too long',
  busy: 'The node is busy',
  denied: 'You may not do this',
  'too-large': 'It is too large',
  'bad-input': 'A row of the file could not be read',
  'unknown-column': 'There is no such column',
  'not-found': 'Something it needs is not there',
  conflict: 'The name is taken',
  cancelled: 'It was cancelled',
  unavailable: 'A part of the node was not available',
  corrupt: 'Stored data is damaged',
  'upload-incomplete': 'Parts of the upload are missing',
}

/** Read the error of a job record, which is an error document or plain text. */
export function troubleOf(error: unknown): Trouble | null {
  if (error === null || error === undefined || error === '') return null
  if (typeof error !== 'object') return { title: 'It failed', message: String(error), hint: null }
  const { error: message, code, hint } = error as Record<string, unknown>
  return {
    title: titleOfCode(String(code)) ?? 'It failed',
    message: typeof message === 'string' ? message : JSON.stringify(error),
    hint: typeof hint === 'string' ? hint : null,
  }
}

function records(tree: unknown): Record<string, unknown>[] {
  if (typeof tree !== 'object' || tree === null) return []
  return Object.values(tree).filter((value) => typeof value === 'object' && value !== null)
}

function compare(a: unknown, b: unknown): number {
  if (a === b) return 0
  return String(a ?? '') < String(b ?? '') ? -1 : 1
}
