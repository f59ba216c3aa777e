/** Inputs in a folder, for workers in Node. */

import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import process from 'node:process'

import { entryName, entryOfName, type InputEntry, type InputStore } from './inputCache.ts'

const STAGED = /^[0-9a-f]{64}-[0-9a-f]{64}-\d+\.\d+$/
const STAGED_MS = 3_600_000

/** The store in a folder, which it makes readable for its owner alone. */
export function nodeInputs(folder: string): InputStore {
  const file = (entry: InputEntry): string => path.join(folder, entryName(entry))
  return {
    async entries() {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      const found: { entry: InputEntry; at: number }[] = []
      for (const name of await readdir(folder)) {
        const entry = entryOfName(name)
        const place = path.join(folder, name)
        const at = (await stat(place).catch(() => null))?.mtimeMs ?? 0
        if (entry && at) found.push({ entry, at })
        // What a worker left that was killed while it wrote.
        else if (STAGED.test(name) && Date.now() - at > STAGED_MS) await rm(place, { force: true })
      }
      return found.sort((a, b) => a.at - b.at).map(({ entry }) => entry)
    },
    async read(entry) {
      const bytes = await readFile(file(entry)).catch(() => null)
      return bytes && Uint8Array.from(bytes)
    },
    async write(entry, bytes) {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      const staged = `${file(entry)}.${process.pid}`
      const handle = await open(staged, 'w', 0o600)
      try {
        await handle.writeFile(bytes)
      } finally {
        await handle.close()
      }
      await rename(staged, file(entry))
    },
    async remove(entry) {
      await rm(file(entry), { force: true })
    },
  }
}
