/** Paths into the tree: `/a/b` in text, a list of keys inside. Limits are Firebase's. */

import { BadValue } from './errors.js'

export type Path = readonly string[]

export const DEPTH_MAX = 32
export const KEY_BYTES_MAX = 768

const FORBIDDEN = /[.$#[\]/\u0000-\u001f\u007f]/
const INTEGER = /^(?:0|-?[1-9][0-9]{0,9})$/
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

/** Join keys to a path that starts with a slash; no keys give `/`. */
export function formatPath(keys: Path): string {
  return `/${keys.join('/')}`
}

/** Whether `path` is `top` or lies below it. */
export function isWithin(path: Path, top: Path): boolean {
  return path.length >= top.length && top.every((key, index) => key === path[index])
}

/** Refuse places of which one lies in another: no order says which of them counts. */
export function refuseNested(paths: readonly Path[]): void {
  const texts = paths.map((path) => `${formatPath(path)}/`).sort()
  for (const [index, text] of texts.entries()) {
    const next = texts[index + 1]
    if (next?.startsWith(text)) {
      throw new BadValue(text, `${next} cannot be written with it in one update`)
    }
  }
}

/** Say what forbids `key` as the name of a child. */
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

/** The number that `key` is the canonical text of, when it fits 32 bits. */
export function asInteger(key: string): number | null {
  if (!INTEGER.test(key)) return null
  const number = Number(key)
  return number >= -(2 ** 31) && number < 2 ** 31 ? number : null
}

/** Firebase's order: canonical 32-bit integers by number, then text by code point. */
export function compareKeys(left: string, right: string): number {
  const a = asInteger(left)
  const b = asInteger(right)
  if (a !== null && b !== null) return a - b
  if (a !== null || b !== null) return a !== null ? -1 : 1
  return compareText(left, right)
}

/** Order of the UTF-8 bytes, which differs from UTF-16's where surrogates meet U+E000 and above. */
function compareText(left: string, right: string): number {
  const length = Math.min(left.length, right.length)
  for (let index = 0; index < length; index += 1) {
    const a = left.charCodeAt(index)
    const b = right.charCodeAt(index)
    if (a !== b) return above(a) - above(b)
  }
  return left.length - right.length
}

const above = (unit: number) => (unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit)
