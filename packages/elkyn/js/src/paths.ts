/** Paths into the tree: `/a/b` in text, a list of keys inside. Limits are Firebase's. */

import { BadValue } from './errors.ts'

export type Path = readonly string[]

export const DEPTH_MAX = 32
const KEY_BYTES_MAX = 768

const FORBIDDEN = /[.$#[\]/\u0000-\u001f\u007f]/
const INTEGER = /^-?0*[0-9]{1,10}$/
const encoder = new TextEncoder()

/** Split `path` into keys; slashes at the ends and doubled ones mean nothing. */
export function parsePath(path: string): Path {
  if (typeof path !== 'string') throw new BadValue(String(path), 'a path is a text such as /a/b')
  const keys = path.split('/').filter((key) => key !== '')
  for (const key of keys) {
    const problem = keyProblem(key)
    if (problem) throw new BadValue(path, problem)
  }
  if (keys.length > DEPTH_MAX) {
    throw new BadValue(path, `${keys.length} levels deep; the limit is ${DEPTH_MAX}`)
  }
  return keys
}

/** Join keys to a path that starts with a slash; `/` for no keys. */
export function formatPath(keys: Path): string {
  return `/${keys.join('/')}`
}

/** Whether `path` is `top` or below it. */
export function isWithin(path: Path, top: Path): boolean {
  return path.length >= top.length && top.every((key, index) => key === path[index])
}

/** Refuse places of which one is inside another: their order would be undefined. */
export function refuseNested(paths: readonly Path[]): void {
  const texts = paths.map((path) => `${formatPath(path)}/`).sort()
  for (const [index, text] of texts.entries()) {
    const next = texts[index + 1]
    if (next?.startsWith(text)) {
      throw new BadValue(text, `${next} cannot be written in the same update`)
    }
  }
}

/** The reason why `key` is not a valid name of a child, if any. */
export function keyProblem(key: string): string | null {
  if (key === '') return 'a key must not be empty'
  const found = FORBIDDEN.exec(key)
  if (found) {
    return `key ${JSON.stringify(key)} holds ${JSON.stringify(found[0])}; keys must not hold . $ # [ ] / or control characters`
  }
  if (!key.isWellFormed()) return 'a key is not valid Unicode (a lone surrogate)'
  if (key.length * 3 > KEY_BYTES_MAX && encoder.encode(key).length > KEY_BYTES_MAX) {
    return `key ${JSON.stringify(key.slice(0, 40))}… is over ${KEY_BYTES_MAX} bytes`
  }
  return null
}

/** The integer that the Firebase SDKs read `key` as (`tryParseInt`): 32 bits, with leading zeros. */
export function asInteger(key: string): number | null {
  if (!INTEGER.test(key)) return null
  const number = Number(key)
  return number >= -(2 ** 31) && number < 2 ** 31 ? number : null
}

/**
 * The order of the Firebase SDKs (`nameCompare`): integers by value and then by length, then text by
 * UTF-16 unit. "00" and "-0", which the SDKs treat as one key, come in this order.
 */
export function compareKeys(left: string, right: string): number {
  const a = asInteger(left)
  const b = asInteger(right)
  if (a !== null && b !== null) return a - b || left.length - right.length || order(right, left)
  if (a !== null || b !== null) return a !== null ? -1 : 1
  return order(left, right)
}

function order(left: string, right: string): number {
  return left < right ? -1 : Number(left > right)
}
