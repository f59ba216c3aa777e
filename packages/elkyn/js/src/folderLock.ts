/** The lock of a folder: a file that names the process holding it. */

import {
  constants,
  copyFileSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'

import { ElkynError } from './errors.ts'

/** Acquire the lock of `folder`; returns the function that releases it. */
export function lockFolder(folder: string): () => void {
  const lock = join(folder, 'lock')
  const own = mkdtempSync(join(folder, 'lock-'))
  const mine = join(own, 'mine')
  try {
    writeFileSync(mine, `${process.pid} ${startOf(process.pid)}`, { mode: 0o600 })
    for (let tries = 0; !linked(mine, lock); tries += 1) {
      const owner = textOf(lock)
      if (owner === null) continue
      if (tries > 9 || isAlive(owner)) throw isOpen(folder, owner)
      remove(lock, owner, join(own, 'stale'))
    }
  } finally {
    rmSync(own, { recursive: true, force: true })
  }
  return () => rmSync(lock, { force: true })
}

function isOpen(folder: string, owner: string): ElkynError {
  const [pid] = owner.split(' ')
  return new ElkynError(
    `the store at ${folder} is open in process ${pid}; if it is not, remove its file "lock"`,
  )
}

/** Create `lock` with the text of `file`, unless it exists. */
function linked(file: string, lock: string): boolean {
  try {
    linkSync(file, lock)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    return copied(file, lock)
  }
}

/** The same on file systems without links. */
function copied(file: string, lock: string): boolean {
  try {
    copyFileSync(file, lock, constants.COPYFILE_EXCL)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return false
  }
}

function textOf(file: string): string | null {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return null
  }
}

/** Remove the lock of a dead owner; restore a lock that another process has put there meanwhile. */
function remove(lock: string, owner: string, aside: string): void {
  try {
    renameSync(lock, aside)
  } catch {
    return
  }
  if (textOf(aside) !== owner) linked(aside, lock)
  rmSync(aside, { force: true })
}

/** Whether the process that wrote `owner` runs; a later process with the same pid does not count. */
function isAlive(owner: string): boolean {
  const [pid, start] = owner.split(' ')
  const number = Number(pid)
  if (!Number.isInteger(number) || number <= 0) return false
  try {
    process.kill(number, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false
  }
  return !start || start === startOf(number)
}

/** The start time of a process as Linux formats it; empty where it cannot be read. */
function startOf(pid: number): string {
  const status = textOf(`/proc/${pid}/stat`)
  const boot = textOf('/proc/sys/kernel/random/boot_id')
  if (status === null || boot === null) return ''
  const fields = status.slice(status.lastIndexOf(')') + 2).split(' ')
  return `${boot.trim()}/${fields[19]}`
}
