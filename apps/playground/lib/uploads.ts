'use client'

/** The uploads of this page, sent by one pool of workers. */

import {
  startUploadWorker,
  storageResume,
  Upload,
  UploadError,
  WorkerPool,
  type UploadOptions,
  type UploadSnapshot,
} from '@sennit/elytra'

import { signInNeeded } from './api'
import { Store } from './store'

/** How a file shall be read; what is left out is detected. */
export interface IngestOptions {
  name?: string
  delimiter?: string
  encoding?: string
  header?: boolean
  dateOrder?: 'dmy' | 'mdy'
  strict?: boolean
}

export type UploadMode = 'create' | 'replace' | 'append'

/** One line of the upload list. */
export interface UploadItem {
  id: string
  file: File
  mode: UploadMode
  options: IngestOptions
  snapshot: UploadSnapshot
}

const WORKERS = 4

/** Every upload of this page, oldest first. */
export const uploads = new Store<readonly UploadItem[]>([])

const running = new Map<string, Upload>()
let pool: WorkerPool | null = null
let nextId = 0

/** Send a file to the node. */
export function startUpload(
  file: File,
  options: IngestOptions = {},
  mode: UploadMode = 'create',
): string {
  const id = `upload-${nextId++}`
  const uploadOptions: UploadOptions = {
    pool: (pool ??= new WorkerPool(startUploadWorker, WORKERS)),
    parallel: WORKERS,
    mode,
    options: { ...options },
    resume: storageResume(localStorage, resumePrefix(options, mode)),
    onChange: (snapshot) => note(id, snapshot),
  }
  const upload = new Upload(file, uploadOptions)
  running.set(id, upload)
  uploads.set([...uploads.get(), { id, file, mode, options, snapshot: upload.snapshot() }])
  return id
}

/** Retry with other options, replacing a failed upload. */
export function restartUpload(item: UploadItem, options: IngestOptions, mode: UploadMode): void {
  dismissUpload(item.id)
  startUpload(item.file, options, mode)
}

export function pauseUpload(id: string): void {
  running.get(id)?.pause()
}

export function resumeUpload(id: string): void {
  running.get(id)?.resume()
}

export function cancelUpload(id: string): void {
  void running.get(id)?.cancel()
}

/** Remove an ended upload from the list. */
export function dismissUpload(id: string): void {
  running.delete(id)
  uploads.set(uploads.get().filter((item) => item.id !== id))
}

/** Whether leaving the page now would interrupt something. */
export function anyUnderWay(items: readonly UploadItem[]): boolean {
  return items.some(({ snapshot: { state } }) => !['done', 'failed', 'cancelled'].includes(state))
}

/** The same file with other options is another upload. */
function resumePrefix(options: IngestOptions, mode: UploadMode): string {
  return `sennit.upload.${mode}.${JSON.stringify(options, Object.keys(options).sort())}.`
}

function note(id: string, snapshot: UploadSnapshot): void {
  if (snapshot.error instanceof UploadError && snapshot.error.status === 401) signInNeeded.set(true)
  uploads.set(uploads.get().map((item) => (item.id === id ? { ...item, snapshot } : item)))
}
