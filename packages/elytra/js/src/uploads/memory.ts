/** What is remembered of one file's upload beyond the page that sends it. */

import { UploadError } from '../errors.ts'
import { canonicalJson } from '../plan/canonical.ts'
import { claimUpload, type Release } from './claims.ts'
import { fingerprintOf, isSameFile, type Fingerprint } from './fingerprint.ts'
import type { PickedFile } from './picking.ts'
import type { UploadRecord, UploadRecords } from './records.ts'
import type { UploadSession } from './session.ts'
import type { UploadMemory } from './upload.ts'

/** What an upload does with its file; together with the file it identifies the upload. */
export type Target = Pick<UploadRecord, 'url' | 'name' | 'mode' | 'options'>

/** The record of an upload, from its first part until it is done or cancelled. */
export class RecordedUpload implements UploadMemory {
  /** Null until the upload has an id. */
  private record: UploadRecord | null = null
  private release: Release = () => undefined
  private fingerprint: Fingerprint | null = null
  /** Whether the record is stored: not without storage, or when it is full. */
  private stored = false

  constructor(
    private readonly records: UploadRecords,
    private readonly picked: PickedFile,
    private readonly target: Target,
  ) {}

  /** Begin with a record that this tab has claimed. */
  adopt(record: UploadRecord, release: Release): void {
    this.record = { ...record, handle: this.picked.handle ?? record.handle }
    this.release = release
  }

  get uploadId(): string | null {
    return this.record?.uploadId ?? null
  }

  get resumable(): boolean {
    return this.stored && this.records.durable
  }

  async find(): Promise<{ uploadId: string; completing: boolean } | null> {
    this.fingerprint ??= await fingerprintOf(this.picked.file)
    if (this.record) return this.record
    const known = (await this.list()).find((record) => this.isOf(record, this.fingerprint!))
    if (!known) return null
    const release = await claimUpload(known.uploadId)
    if (!release) throw inUse(this.target.name)
    this.adopt(known, release)
    return known
  }

  async opened(session: UploadSession): Promise<void> {
    const known = this.record
    if (known && known.uploadId !== session.uploadId) await this.ended()
    if (!this.record) {
      this.release = (await claimUpload(session.uploadId)) ?? this.release
      this.record = {
        ...this.target,
        uploadId: session.uploadId,
        file: this.fingerprint ?? (await fingerprintOf(this.picked.file)),
        startedAtMs: Date.now(),
        completing: false,
        handle: this.picked.handle,
      }
    }
    await this.store()
  }

  async completing(started: boolean): Promise<void> {
    if (!this.record) return
    this.record = { ...this.record, completing: started }
    await this.store()
  }

  async ended(): Promise<void> {
    const { record } = this
    this.record = null
    this.leave()
    if (record) await this.records.remove(record.uploadId).catch(() => undefined)
  }

  /** Let other tabs go on with the upload. */
  leave(): void {
    this.release()
    this.release = () => undefined
  }

  private isOf(record: UploadRecord, file: Fingerprint): boolean {
    const target = ({ url, name, mode, options }: Target) =>
      canonicalJson({ url, name, mode, options } as never)
    return target(record) === target(this.target) && isSameFile(record.file, file)
  }

  private async list(): Promise<UploadRecord[]> {
    // Without storage (private windows, blocked site data) uploads work, but end with the page.
    return this.records.list().catch(() => [])
  }

  private async store(): Promise<void> {
    this.stored = await this.records.put(this.record!).then(
      () => true,
      () => false, // `resumable` says so
    )
  }
}

/** The error of an upload that another tab sends. */
export function inUse(name: string): UploadError {
  return new UploadError(`${name} is being uploaded already.`, {
    code: 'in-use',
    status: 409,
    hint: 'Look for it in this list, or in another tab of this browser.',
  })
}
