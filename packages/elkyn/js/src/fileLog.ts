/**
 * A log in a folder, for Node: `log.ndjson`, appended and synced before `append` returns.
 *
 * Each line is the first 12 hex digits of the SHA-256 of a JSON text, a space, and the text. A torn
 * last line was never acknowledged and is cut off; a bad line before it is damage: an error.
 */

import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { join } from 'node:path'

import { ElkynError } from './errors.ts'
import { lockFolder } from './folderLock.ts'
import { COMPACT_ENTRIES, type Entry, type Log, type LogListener } from './log.ts'

const HEADER = Buffer.from('elkyn log 1\n')
const COMPACT_BYTES = 8 * 1024 * 1024
const SUM_CHARS = 12

export class FileLog implements Log {
  readonly isShared = false
  private readonly file: string
  private readonly unlock: () => void
  private listener: LogListener | null = null
  private handle = -1
  private entries = 0
  private bytes = 0
  private bytesWhole = 0
  private isBroken = false

  /**
   * @param folder created when missing; one store at a time may have it open
   * @param sync whether each write is synced before it returns
   */
  constructor(
    private readonly folder: string,
    private readonly sync = true,
  ) {
    fs.mkdirSync(folder, { recursive: true })
    this.file = join(folder, 'log.ndjson')
    this.unlock = lockFolder(folder)
  }

  load(listener: LogListener): Entry[] {
    this.listener = listener
    try {
      return this.read()
    } catch (error) {
      this.close()
      throw error
    }
  }

  append(entry: Entry): void {
    this.write(line(entry))
    this.entries += 1
    this.listener?.applied(entry)
    const isLong = this.entries > COMPACT_ENTRIES || this.bytes > COMPACT_BYTES
    if (isLong && this.bytes > 2 * this.bytesWhole) this.compact()
  }

  close(): void {
    if (this.handle >= 0) fs.closeSync(this.handle)
    if (this.listener) this.unlock()
    this.handle = -1
    this.listener = null
  }

  private read(): Entry[] {
    this.handle = fs.openSync(this.file, 'a+', 0o600)
    const bytes = fs.readFileSync(this.file)
    const head = bytes.subarray(0, HEADER.length)
    if (!HEADER.subarray(0, head.length).equals(head)) {
      throw new ElkynError(`${this.file} is not a log of this format`)
    }
    if (head.length < HEADER.length) {
      fs.ftruncateSync(this.handle, 0)
      this.write(HEADER)
      this.syncFolder()
      return []
    }
    const { entries, end } = this.parse(bytes)
    fs.ftruncateSync(this.handle, end)
    this.entries = entries.length
    this.bytes = end
    return entries
  }

  private parse(bytes: Buffer): { entries: Entry[]; end: number } {
    const entries: Entry[] = []
    let end = HEADER.length
    for (let number = 2; ; number += 1) {
      const stop = bytes.indexOf(10, end)
      if (stop < 0) return { entries, end }
      const text = bytes.toString('utf8', end + SUM_CHARS + 1, stop)
      if (bytes.toString('latin1', end, end + SUM_CHARS + 1) !== `${sumOf(text)} `) {
        if (stop === bytes.length - 1) return { entries, end }
        throw new ElkynError(`${this.file}, line ${number}: the checksum does not match`)
      }
      entries.push(JSON.parse(text) as Entry)
      end = stop + 1
    }
  }

  /** Write the whole state to a new file, and replace the old file by it. */
  private compact(): void {
    const snapshot = this.listener?.snapshot()
    if (!snapshot) return
    const fresh = `${this.file}.new`
    const whole = line(snapshot)
    let handle = -1
    try {
      fs.rmSync(fresh, { force: true })
      handle = fs.openSync(fresh, 'a', 0o600)
      writeAll(handle, Buffer.concat([HEADER, whole]))
      fs.fsyncSync(handle)
      fs.renameSync(fresh, this.file)
    } catch {
      if (handle >= 0) fs.closeSync(handle)
      fs.rmSync(fresh, { force: true })
      this.bytesWhole = this.bytes // the long log is still valid; try again when it has doubled
      return
    }
    fs.closeSync(this.handle)
    this.handle = handle
    this.syncFolder()
    this.entries = 1
    this.bytes = this.bytesWhole = HEADER.length + whole.length
  }

  /** Append, or leave the file as it was. */
  private write(bytes: Buffer): void {
    if (this.isBroken)
      throw new ElkynError(`an earlier write to ${this.file} failed: open the store again`)
    try {
      writeAll(this.handle, bytes)
      this.isBroken = this.sync // after a failed sync the file's content on disk is unknown
      if (this.sync) fs.fdatasyncSync(this.handle)
      this.isBroken = false
    } catch (cause) {
      try {
        fs.ftruncateSync(this.handle, this.bytes)
      } catch {
        this.isBroken = true
      }
      throw new ElkynError(`${this.file} cannot be written: ${String(cause)}`, { cause })
    }
    this.bytes += bytes.length
  }

  private syncFolder(): void {
    const folder = fs.openSync(this.folder, 'r')
    fs.fsyncSync(folder)
    fs.closeSync(folder)
  }
}

function line(entry: Entry): Buffer {
  const text = JSON.stringify(entry)
  return Buffer.from(`${sumOf(text)} ${text}\n`)
}

function sumOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, SUM_CHARS)
}

function writeAll(handle: number, bytes: Buffer): void {
  for (let done = 0; done < bytes.length;) {
    done += fs.writeSync(handle, bytes, done, bytes.length - done)
  }
}
