/** Inputs in the browser's Cache API: shared by all tabs of the node's pages. */

import { entryName, entryOfName, type InputEntry, type InputStore } from './inputCache.ts'

const NAME = 'sennit-inputs'
/** No request is sent to it: entries need addresses of this origin. */
const FOLDER = '/runtime/inputs/'

/** The store; null where pages have no such cache, as over plain HTTP from another machine. */
export function browserInputs(): InputStore | null {
  if (typeof caches === 'undefined') return null
  const address = (entry: InputEntry): string =>
    new URL(FOLDER + entryName(entry), location.origin).href
  return {
    async entries() {
      const cache = await caches.open(NAME)
      // In the order in which they were written.
      const names = (await cache.keys()).map(({ url }) => url.slice(url.lastIndexOf('/') + 1))
      return names.map(entryOfName).filter((entry) => entry !== null)
    },
    async read(entry) {
      const found = await (await caches.open(NAME)).match(address(entry))
      return found ? new Uint8Array(await found.arrayBuffer()) : null
    },
    async write(entry, bytes) {
      const headers = { 'Content-Type': 'application/vnd.apache.arrow.stream' }
      const response = new Response(bytes, { headers })
      await (await caches.open(NAME)).put(address(entry), response)
    },
    async remove(entry) {
      await (await caches.open(NAME)).delete(address(entry))
    },
  }
}
