'use client'

/** The uploads of this page, and those that earlier visits left unfinished. */

import {
  StreamUploader,
  UploadError,
  type PickedFile,
  type UnfinishedUpload,
  type Upload,
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

export type UploadMode = 'create' | 'replace' | 'append' | 'upsert'

/** One line of the upload list. */
export interface UploadItem {
  id: string
  source: File | PickedFile
  mode: UploadMode
  options: IngestOptions
  snapshot: UploadSnapshot
}

/** Every upload of this page, oldest first. */
export const uploads = new Store<readonly UploadItem[]>([])

/** What earlier visits left, oldest first. */
export const unfinishedUploads = new Store<readonly UnfinishedUpload[]>([])

const running = new Map<string, Upload>()
let shared: StreamUploader | null = null
let nextId = 0
/** Counts changes to the unfinished uploads: an answer of the node from before one is out of date. */
let changes = 0

/** Send a file to the node. */
export function startUpload(
  source: File | PickedFile,
  options: IngestOptions = {},
  mode: UploadMode = 'create',
): string {
  const id = newId()
  const onChange = (snapshot: UploadSnapshot) => note(id, snapshot)
  const upload = uploader().upload(source, { mode, options: { ...options }, onChange })
  list({ id, source, mode, options, snapshot: upload.snapshot() }, upload)
  return id
}

/** Ask the node for the uploads that earlier visits left. */
export async function refreshUnfinished(): Promise<void> {
  const before = changes
  try {
    const found = await uploader().unfinished()
    if (before !== changes) return await refreshUnfinished()
    unfinishedUploads.set(found)
  } catch (error) {
    // Without storage there are none; without a session the sign-in asks again.
    if (error instanceof UploadError && error.status === 401) signInNeeded.set(true)
    unfinishedUploads.set([])
  }
}

/**
 * Go on with an unfinished upload: with its stored file handle, or with the file chosen again.
 *
 * @throws UploadError; FileMismatch if it is another file.
 */
export async function continueUpload(
  left: UnfinishedUpload,
  source?: File | PickedFile,
): Promise<void> {
  const id = newId()
  const onChange = (snapshot: UploadSnapshot) => note(id, snapshot)
  const upload = await uploader().resume(left.uploadId, source, onChange)
  const { mode, options } = left
  list({ id, source: source ?? upload.file, mode, options, snapshot: upload.snapshot() }, upload)
  forget(left)
}

/** Delete an unfinished upload, here and on the node. */
export async function discardUpload(left: UnfinishedUpload): Promise<void> {
  await uploader().discard(left.uploadId)
  forget(left)
}

/** Retry with other options, replacing a failed upload. */
export function restartUpload(item: UploadItem, options: IngestOptions, mode: UploadMode): void {
  dismissUpload(item.id)
  startUpload(item.source, options, mode)
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

/** Remove an ended upload from the list; the node drops the parts of a failed one. */
export function dismissUpload(id: string): void {
  cancelUpload(id)
  running.delete(id)
  uploads.set(uploads.get().filter((item) => item.id !== id))
}

/** Whether leaving the page now would interrupt something. */
export function anyUnderWay(items: readonly UploadItem[]): boolean {
  return items.some(({ snapshot: { state } }) => !['done', 'failed', 'cancelled'].includes(state))
}

/** One pool of workers for the page; made when it is first needed, as an exported page has no node. */
function uploader(): StreamUploader {
  return (shared ??= new StreamUploader())
}

function newId(): string {
  return `upload-${nextId++}`
}

function list(item: UploadItem, upload: Upload): void {
  running.set(item.id, upload)
  uploads.set([...uploads.get(), item])
}

function forget({ uploadId }: UnfinishedUpload): void {
  changes += 1
  unfinishedUploads.set(unfinishedUploads.get().filter((each) => each.uploadId !== uploadId))
}

function note(id: string, snapshot: UploadSnapshot): void {
  if (snapshot.error instanceof UploadError && snapshot.error.status === 401) signInNeeded.set(true)
  uploads.set(uploads.get().map((item) => (item.id === id ? { ...item, snapshot } : item)))
}
