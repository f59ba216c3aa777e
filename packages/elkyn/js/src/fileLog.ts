/**
 * A log in a folder, for Node: `log.ndjson`, appended and synced before `append` returns.
 *
 * Each line is the first 12 hex digits of the SHA-256 of a JSON text, a space, and the text. A torn
 * last line was never acknowledged and is cut off; a bad line before it is damage, and refused.
 */

import type * as fs from 'node:fs'

import { ElkynError } from './errors'
import type { Entry, Log } from './log'

type Fs = typeof fs

const HEADER = 'elkyn log 1\n'

export class FileLog implements Log {
  private readonly fs: Fs
  private readonly hash: (text: string) => string
  private readonly file: string
  private readonly lock: string
  private handle = -1

  /**
   * @param folder made when missing; one store at a time may have it open
   * @param sync whether each write reaches the disk before it returns
   */
  constructor(
    private readonly folder: string,
    private readonly sync = true,
  ) {
    this.fs = builtin('node:fs')
    const { createHash } = builtin('node:crypto')
    this.hash = (text) => createHash('sha256').update(text).digest('hex').slice(0, 12)
    const { join } = builtin('node:path')
    this.fs.mkdirSync(folder, { recursive: true })
    this.file = join(folder, 'log.ndjson')
    this.lock = join(folder, 'lock')
    this.takeLock()
  }

  load(): Entry[] {
    try {
      return this.read()
    } catch (error) {
      this.close()
      throw error
    }
  }

  private read(): Entry[] {
    const { fs } = this
    this.handle = fs.openSync(this.file, 'a+', 0o600)
    const bytes = fs.readFileSync(this.file)
    if (bytes.length === 0) {
      this.write(HEADER)
      this.syncFolder()
      return []
    }
    const end = bytes.lastIndexOf('\n') + 1
    const lines = bytes.subarray(0, end).toString('utf8').split('\n').slice(0, -1)
    if (!HEADER.startsWith(bytes.subarray(0, HEADER.length).toString('utf8'))) {
      throw new ElkynError(`${this.file} is not a log of this format`)
    }
    const { entries, whole } = this.parse(lines.slice(1))
    if (lines.length === 0) {
      fs.ftruncateSync(this.handle, 0)
      this.write(HEADER)
    } else {
      fs.ftruncateSync(this.handle, whole + HEADER.length)
    }
    return entries
  }

  append(entry: Entry): void {
    this.write(this.line(entry))
  }

  compact(entry: Entry): void {
    const { fs } = this
    const fresh = `${this.file}.new`
    const handle = fs.openSync(fresh, 'w', 0o600)
    fs.writeSync(handle, HEADER + this.line(entry))
    fs.fsyncSync(handle)
    fs.closeSync(handle)
    fs.renameSync(fresh, this.file)
    this.syncFolder()
    fs.closeSync(this.handle)
    this.handle = fs.openSync(this.file, 'a+', 0o600)
  }

  close(): void {
    if (this.handle < 0) return
    this.fs.closeSync(this.handle)
    this.handle = -1
    this.fs.rmSync(this.lock, { force: true })
  }

  private parse(lines: string[]): { entries: Entry[]; whole: number } {
    const entries: Entry[] = []
    let whole = 0
    for (const [index, line] of lines.entries()) {
      const text = line.slice(13)
      if (line[12] !== ' ' || this.hash(text) !== line.slice(0, 12)) {
        if (index === lines.length - 1) break
        throw new ElkynError(`${this.file}, line ${index + 2}: the checksum does not fit its text`)
      }
      entries.push(JSON.parse(text) as Entry)
      whole += Buffer.byteLength(line) + 1
    }
    return { entries, whole }
  }

  private line(entry: Entry): string {
    const text = JSON.stringify(entry)
    return `${this.hash(text)} ${text}\n`
  }

  private write(text: string): void {
    this.fs.writeSync(this.handle, text)
    if (this.sync) this.fs.fdatasyncSync(this.handle)
  }

  private syncFolder(): void {
    const folder = this.fs.openSync(this.folder, 'r')
    this.fs.fsyncSync(folder)
    this.fs.closeSync(folder)
  }

  private takeLock(): void {
    const { fs } = this
    for (let tries = 0; ; tries += 1) {
      try {
        fs.writeFileSync(this.lock, String(process.pid), { flag: 'wx', mode: 0o600 })
        return
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
        const owner = Number(fs.readFileSync(this.lock, 'utf8'))
        if (tries > 0 || (owner && isAlive(owner))) {
          throw new ElkynError(`the store at ${this.folder} is open in process ${owner}`)
        }
        fs.rmSync(this.lock, { force: true })
      }
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Node's own modules without an import, so that a page's bundler finds nothing to complain of. */
function builtin<Name extends 'node:fs' | 'node:crypto' | 'node:path'>(name: Name) {
  return process.getBuiltinModule(name)
}
