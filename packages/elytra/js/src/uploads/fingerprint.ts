/** Whether a file that was chosen again is the one that an unfinished upload began with. */

import { FileMismatch, UploadError } from '../errors.ts'
import { sha256Hex } from './sha256.ts'

/** Bytes of the head and of the tail of a file that are hashed. */
const EDGE_BYTES = 64 * 1024

/** What identifies a file without reading all of it. */
export interface Fingerprint {
  name: string
  size: number
  lastModified: number
  /** Hex SHA-256 of the first and the last 64 KiB, one after the other. */
  edges: string
}

/**
 * The fingerprint of a file; reads at most 128 KiB of it.
 *
 * @throws UploadError with code `bad-input` if the file cannot be read.
 */
export async function fingerprintOf(file: File): Promise<Fingerprint> {
  const { name, size, lastModified } = file
  const tail = file.slice(Math.max(EDGE_BYTES, size - EDGE_BYTES))
  const edges = new Blob([file.slice(0, EDGE_BYTES), tail])
  try {
    const bytes = new Uint8Array(await edges.arrayBuffer())
    return { name, size, lastModified, edges: await sha256Hex(bytes) }
  } catch (error) {
    throw new UploadError(`Reading ${name} failed: ${String(error)}`, {
      code: 'bad-input',
      status: 400,
      hint: 'Choose the file again.',
    })
  }
}

/** Whether two fingerprints are of the same file. */
export function isSameFile(a: Fingerprint, b: Fingerprint): boolean {
  return differences(a, b).length === 0
}

/**
 * Refuse a file that is not the expected one.
 *
 * The time of the last change counts too: its head and tail may be the same, but the parts that the
 * node has would be of the old version and the rest of the new one.
 *
 * @throws FileMismatch that says in what the files differ.
 */
export function checkSameFile(expected: Fingerprint, found: Fingerprint): void {
  const differs = differences(expected, found)
  if (differs.length > 0) throw new FileMismatch(expected.name, found.name, differs)
}

function differences(expected: Fingerprint, found: Fingerprint): string[] {
  const differs: string[] = []
  if (expected.name !== found.name) differs.push(`it is named ${found.name}, not ${expected.name}`)
  if (expected.size !== found.size) {
    const bytes = (count: number) => count.toLocaleString('en')
    differs.push(`it has ${bytes(found.size)} bytes, not ${bytes(expected.size)}`)
  } else if (expected.edges !== found.edges) differs.push('its content is another one')
  if (differs.length === 0 && expected.lastModified !== found.lastModified) {
    const time = (ms: number) => new Date(ms).toISOString().slice(0, 19).replace('T', ' ')
    differs.push(
      `it was last changed at ${time(found.lastModified)} UTC, not at ${time(expected.lastModified)}`,
    )
  }
  return differs
}
