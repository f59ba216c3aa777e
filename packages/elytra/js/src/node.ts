/**
 * What uploads of Node need besides: files by their path, and unfinished uploads in a folder.
 *
 * An entry of its own, as bundlers of pages have no `node:fs`.
 */

import { randomUUID } from 'node:crypto'
import { openAsBlob } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'

import { UploadError } from './errors.ts'
import { surplusRecords, type UploadRecord, type UploadRecords } from './uploads/records.ts'

/**
 * A file of the disk, which is read in slices as they are needed: its size does not matter.
 *
 * @throws UploadError with code `bad-input` if there is none, or it is a folder.
 */
export async function openFile(path: string): Promise<File> {
  try {
    const found = await stat(path)
    if (!found.isFile()) throw new Error('it is not a file')
    const blob = await openAsBlob(path)
    return new File([blob], basename(path), { lastModified: Math.trunc(found.mtimeMs) })
  } catch (error) {
    throw new UploadError(`Reading ${path} failed: ${String((error as Error).message)}`, {
      code: 'bad-input',
      status: 400,
      hint: 'Check the path.',
    })
  }
}

/** Records of unfinished uploads as JSON files of a folder, which is created when it is needed. */
export function folderRecords(folder: string): UploadRecords {
  const pathOf = (uploadId: string) => join(folder, `${encodeURIComponent(uploadId)}.json`)
  const list = async (): Promise<UploadRecord[]> => {
    const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return []
      throw error
    })
    const found = names.filter((name) => name.endsWith('.json')).map((name) => read(folder, name))
    return (await Promise.all(found)).filter((record) => record !== null)
  }
  const remove = (uploadId: string) => rm(pathOf(uploadId), { force: true })
  return {
    durable: true,
    list,
    remove,
    put: async (record) => {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      await writeWhole(pathOf(record.uploadId), JSON.stringify({ ...record, handle: null }))
      for (const each of surplusRecords(await list(), Date.now())) await remove(each.uploadId)
    },
  }
}

/** A record, or null if another process has just removed it or its text is damaged. */
async function read(folder: string, name: string): Promise<UploadRecord | null> {
  try {
    return JSON.parse(await readFile(join(folder, name), 'utf8')) as UploadRecord
  } catch {
    return null
  }
}

/** Replace a file at once, so that a crash leaves the old one or the new one. */
async function writeWhole(path: string, text: string): Promise<void> {
  const fresh = `${path}.${randomUUID()}`
  try {
    const file = await open(fresh, 'wx', 0o600)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(fresh, path)
  } catch (error) {
    await rm(fresh, { force: true })
    throw error
  }
}
