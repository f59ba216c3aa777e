/** One tab at a time sends an upload: Web Locks, which end with their tab. */

const PREFIX = 'sennit-upload:'

/** Ends a claim. */
export type Release = () => void

/**
 * Claim an upload for this tab; null if another tab sends it.
 *
 * Insecure origins and Node have no locks: there two tabs may send the same parts, which the node
 * accepts twice without harm.
 */
export function claimUpload(uploadId: string): Promise<Release | null> {
  const locks = lockManager()
  if (!locks) return Promise.resolve(() => undefined)
  return new Promise((resolve, reject) => {
    locks
      .request(PREFIX + uploadId, { ifAvailable: true }, (lock) => {
        if (!lock) return resolve(null)
        return new Promise<void>((release) => resolve(release))
      })
      .catch(reject)
  })
}

/** The uploads that some tab sends, this one included. */
export async function claimedUploads(): Promise<Set<string>> {
  const { held = [] } = (await lockManager()?.query()) ?? {}
  const names = held.map((lock) => lock.name ?? '').filter((name) => name.startsWith(PREFIX))
  return new Set(names.map((name) => name.slice(PREFIX.length)))
}

function lockManager(): LockManager | undefined {
  return typeof navigator === 'undefined' ? undefined : navigator.locks
}
