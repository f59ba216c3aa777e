/** Remembers which upload a file on disk belongs to, so that it goes on after a reload. */

/** Where upload ids are remembered by file. */
export interface ResumeStore {
  get(key: string): string | null
  set(key: string, uploadId: string): void
  remove(key: string): void
}

/** The part of `Storage` this needs. */
export type StorageLike = Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>

/** A file is the same one when name, size and time of change agree. */
export function resumeKey(file: Pick<File, 'name' | 'size' | 'lastModified'>): string {
  return `${file.name}|${file.size}|${file.lastModified}`
}

/** Keeps ids in `localStorage`; a browser that refuses storage only loses the ability to resume. */
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
