/** Stores the upload of each file, so that an upload can be resumed after a page reload. */

/** A store of upload ids by file. */
export interface ResumeStore {
  get(key: string): string | null
  set(key: string, uploadId: string): void
  remove(key: string): void
}

/** The part of `Storage` this needs. */
export type StorageLike = Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>

/** Two files are the same if name, size and modification time are equal. */
export function resumeKey(file: Pick<File, 'name' | 'size' | 'lastModified'>): string {
  return `${file.name}|${file.size}|${file.lastModified}`
}

/** Stores ids in `localStorage`; without storage, uploads cannot be resumed after a reload. */
export function storageResume(storage: StorageLike, prefix = 'sennit.upload.'): ResumeStore {
  const attempt = <T>(action: () => T, otherwise: T): T => {
    try {
      return action()
    } catch {
      return otherwise
    }
  }
  return {
    get: (key) => attempt(() => storage.getItem(prefix + key), null),
    set: (key, uploadId) => attempt(() => storage.setItem(prefix + key, uploadId), undefined),
    remove: (key) => attempt(() => storage.removeItem(prefix + key), undefined),
  }
}
