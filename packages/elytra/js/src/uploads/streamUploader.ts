/**
 * Uploads of files of any size to one node, which go on after a reload.
 *
 *   upload(file) ------------------------> Upload
 *   unfinished() -> resume(id, file?) ---> Upload
 *               `-> discard(id)
 */

import { UploadError, UsageError } from '../errors.ts'
import { claimedUploads, claimUpload } from './claims.ts'
import { PLATFORM_CONNECTIVITY, type Connectivity } from './connectivity.ts'
import { checkSameFile, fingerprintOf } from './fingerprint.ts'
import { indexedDbRecords } from './indexedDbRecords.ts'
import { inUse, RecordedUpload, type Target } from './memory.ts'
import { cutParts, missingParts, partLength } from './parts.ts'
import type { PickedFile } from './picking.ts'
import { WorkerPool, type WorkerLike } from './pool.ts'
import { memoryRecords, type UploadRecord, type UploadRecords } from './records.ts'
import type { RetryPolicy, UploadClock } from './retry.ts'
import { UploadApi, type StartRequest } from './session.ts'
import { startUploadWorker } from './startWorker.ts'
import { Upload, type UploadSnapshot } from './upload.ts'

const WORKERS = 4
const WORKERS_MAX = 16
/** Smaller parts cost a request for little; of larger ones much is lost with a connection. */
const PART_BYTES_MIN = 5_000_000
const PART_BYTES_MAX = 50 << 20

export interface StreamUploaderOptions {
  /** The node's address; the page's own origin by default. */
  url?: string
  token?: string
  /** Parts that are hashed and sent at the same time, each by a worker of its own: 1 to 16. */
  workers?: number
  /** Bytes of a part, 5 MB to 50 MiB; the node decides by default (8 MiB). */
  partBytes?: number
  /** Where unfinished uploads are stored: IndexedDB, or where there is none, in memory. */
  records?: UploadRecords
  retry?: RetryPolicy
  clock?: UploadClock
  connectivity?: Connectivity
  fetch?: typeof fetch
  startWorker?: () => WorkerLike
}

/** How a file becomes a dataset. */
export interface UploadFileOptions {
  /** The file's name on the node, whose stem names the dataset; that of the file by default. */
  name?: string
  mode?: NonNullable<StartRequest['mode']>
  /** How the file is read, as in `POST /api/start-upload`. */
  options?: Record<string, unknown>
  onChange?: (snapshot: UploadSnapshot) => void
}

/** An upload that an earlier visit left unfinished. */
export interface UnfinishedUpload {
  uploadId: string
  /** The file's name, size in bytes and time of its last change. */
  name: string
  size: number
  lastModified: number
  /** Bytes that the node has; null if it cannot be reached. */
  bytesDone: number | null
  startedAtMs: number
  mode: NonNullable<StartRequest['mode']>
  options: Record<string, unknown>
  /** Whether `resume` works without the file: the browser may ask the user for permission. */
  hasHandle: boolean
}

/** Sends files to one node through one pool of workers. */
export class StreamUploader {
  private readonly api: UploadApi
  private readonly pool: WorkerPool
  private readonly records: UploadRecords
  /** Uploads of this page that are not over; their records are not listed as unfinished. */
  private readonly running = new Map<Upload, RecordedUpload>()

  /** @throws UsageError for a number of workers or a size of parts that is not allowed. */
  constructor(private readonly options: StreamUploaderOptions = {}) {
    const { url = '', token, workers = WORKERS, partBytes } = options
    check('workers', workers, 1, WORKERS_MAX)
    if (partBytes !== undefined) check('partBytes', partBytes, PART_BYTES_MIN, PART_BYTES_MAX)
    const headers: Record<string, string> = token ? { Authorization: `Bearer ${token}` } : {}
    this.api = new UploadApi(url.replace(/\/+$/, ''), headers, options.fetch)
    this.pool = new WorkerPool(options.startWorker ?? startUploadWorker, workers)
    this.records =
      options.records ?? (typeof indexedDB === 'undefined' ? memoryRecords() : indexedDbRecords())
  }

  /**
   * Send a file; an unfinished upload of the same file with the same options goes on.
   *
   * Its errors are those of `Upload.finished`.
   */
  upload(source: File | PickedFile, options: UploadFileOptions = {}): Upload {
    const picked = asPicked(source)
    return this.begin(picked, this.targetOf(picked, options), options.onChange)
  }

  /**
   * The uploads that earlier visits left, oldest first, without those that another tab sends.
   * Records of uploads that the node does not have any more are deleted.
   *
   * @throws UploadError if the node refuses to say, as without a token.
   */
  async unfinished(): Promise<UnfinishedUpload[]> {
    const claimed = await claimedUploads()
    const sent = new Set([...this.running.values()].map((memory) => memory.uploadId))
    const left = (await this.records.list())
      .filter(({ url, uploadId }) => url === this.api.baseUrl && !claimed.has(uploadId))
      .filter(({ uploadId }) => !sent.has(uploadId))
      .sort((a, b) => a.startedAtMs - b.startedAtMs)
    const found: UnfinishedUpload[] = []
    for (const record of left) {
      const bytesDone = await this.bytesAt(record)
      if (bytesDone === 'gone') await this.records.remove(record.uploadId)
      else found.push(describe(record, bytesDone))
    }
    return found
  }

  /**
   * Go on with an unfinished upload. Without a file its stored handle is used: call it in the handler
   * of a click then, as the browser may ask the user for permission.
   *
   * @throws FileMismatch if the file is not the one that the upload began with.
   * @throws UploadError with code `in-use`, `not-found`, `file-needed`, `permission-denied` or
   *   `bad-input`.
   */
  async resume(
    uploadId: string,
    source?: File | PickedFile,
    onChange?: (snapshot: UploadSnapshot) => void,
  ): Promise<Upload> {
    const record = (await this.records.list()).find((each) => each.uploadId === uploadId)
    if (!record)
      throw new UploadError('There is no such upload.', { code: 'not-found', status: 404 })
    const picked = source ? asPicked(source) : await openHandle(record)
    checkSameFile(record.file, await fingerprintOf(picked.file))
    const release = await claimUpload(uploadId)
    if (!release) throw inUse(record.file.name)
    return this.begin(picked, record, onChange, (memory) => memory.adopt(record, release))
  }

  /** Delete an unfinished upload, here and on the node. */
  async discard(uploadId: string): Promise<void> {
    await this.api.abort(uploadId)
    await this.records.remove(uploadId)
  }

  /** Pause all uploads and end the workers; what is unfinished can go on in another uploader. */
  close(): void {
    for (const [upload, memory] of this.running) {
      upload.pause()
      memory.leave()
    }
    this.running.clear()
    this.pool.close()
  }

  private begin(
    picked: PickedFile,
    target: Target,
    onChange?: (snapshot: UploadSnapshot) => void,
    prepare: (memory: RecordedUpload) => void = () => undefined,
  ): Upload {
    const { partBytes, retry, clock, connectivity = PLATFORM_CONNECTIVITY } = this.options
    const memory = new RecordedUpload(this.records, picked, {
      url: target.url,
      name: target.name,
      mode: target.mode,
      options: target.options,
    })
    prepare(memory)
    const { name, mode, options } = target
    const upload = new Upload(picked.file, {
      pool: this.pool,
      api: this.api,
      memory,
      connectivity,
      name,
      mode,
      options,
      ...(partBytes !== undefined && { partBytes }),
      ...(retry && { retry }),
      ...(clock && { clock }),
      onChange: (snapshot) => {
        if (snapshot.state === 'done' || snapshot.state === 'cancelled') this.running.delete(upload)
        onChange?.(snapshot)
      },
    })
    this.running.set(upload, memory)
    return upload
  }

  private targetOf(picked: PickedFile, options: UploadFileOptions): Target {
    return {
      url: this.api.baseUrl,
      name: options.name ?? picked.file.name,
      mode: options.mode ?? 'create',
      options: options.options ?? {},
    }
  }

  private async bytesAt({ uploadId, file }: UploadRecord): Promise<number | null | 'gone'> {
    try {
      const session = await this.api.find(uploadId, file.size)
      if (!session) return 'gone'
      const missing = missingParts(cutParts(file.size, session.partBytes), session.have)
      return missing.reduce((left, part) => left - partLength(part), file.size)
    } catch (error) {
      if (error instanceof UploadError && error.retryable) return null
      throw error
    }
  }
}

function check(name: string, value: number, min: number, max: number): void {
  if (!Number.isSafeInteger(value) || value < min || value > max)
    throw new UsageError(`${name} is ${value}; it must be ${min} to ${max}`)
}

function asPicked(source: File | PickedFile): PickedFile {
  return source instanceof File ? { file: source, handle: null } : source
}

function describe(record: UploadRecord, bytesDone: number | null): UnfinishedUpload {
  const { name, size, lastModified } = record.file
  const { uploadId, startedAtMs, mode, options, handle } = record
  return {
    uploadId,
    name,
    size,
    lastModified,
    bytesDone,
    startedAtMs,
    mode,
    options,
    hasHandle: handle !== null,
  }
}

interface Permissions {
  queryPermission?: (options: { mode: 'read' }) => Promise<PermissionState>
  requestPermission?: (options: { mode: 'read' }) => Promise<PermissionState>
}

async function openHandle(record: UploadRecord): Promise<PickedFile> {
  const { handle, file } = record
  const refused = (message: string, code: string) =>
    new UploadError(message, { code, status: 400, hint: `Choose ${file.name} again.` })
  if (!handle) throw refused(`This browser does not know where ${file.name} is.`, 'file-needed')
  const permissions = handle as Permissions
  try {
    const asks = { mode: 'read' } as const
    const granted =
      permissions.queryPermission === undefined ||
      (await permissions.queryPermission?.(asks)) === 'granted' ||
      (await permissions.requestPermission?.(asks)) === 'granted'
    if (granted) return { file: await handle.getFile(), handle }
  } catch (error) {
    if (error instanceof DOMException && error.name === 'NotFoundError')
      throw refused(`${file.name} is not where it was.`, 'bad-input')
    if (!(error instanceof DOMException)) throw error
  }
  throw refused(`The browser was not allowed to read ${file.name}.`, 'permission-denied')
}
