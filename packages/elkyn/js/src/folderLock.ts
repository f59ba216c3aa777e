/** The lock of a folder: a file that names the process that has it, and goes with it. */

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

import { ElkynError } from './errors.js'

/** Take the lock of `folder`; returns how to give it back. */
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
    `the store at ${folder} is open in process ${pid}; if that is not so, remove its file "lock"`,
  )
}

/** Give `lock` the text of `file`, unless it is there. */
function linked(file: string, lock: string): boolean {
  try {
    linkSync(file, lock)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    return copied(file, lock)
  }
}

/** The same on disks without links. */
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

/** Remove the lock of a dead owner, and put back what somebody else has put there meanwhile. */
function remove(lock: string, owner: string, aside: string): void {
  try {
    renameSync(lock, aside)
  } catch {
    return
  }
  if (textOf(aside) !== owner) linked(aside, lock)
  rmSync(aside, { force: true })
}

/** Whether the process that wrote `owner` runs; a later one with its number is another one. */
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

/** When a process began, in words of Linux; empty where that cannot be read. */
function startOf(pid: number): string {
  const status = textOf(`/proc/${pid}/stat`)
  const boot = textOf('/proc/sys/kernel/random/boot_id')
  if (status === null || boot === null) return ''
  const fields = status.slice(status.lastIndexOf(')') + 2).split(' ')
  return `${boot.trim()}/${fields[19]}`
}
