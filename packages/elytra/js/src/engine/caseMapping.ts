/**
 * Upper and lower case, one code point to one code point, as the node has them.
 *
 * Engines have other versions of Unicode, and a mapping that a later version adds would make other
 * bits. So only letters are mapped whose mappings are older than every engine that runs this
 * code, and code points without any are passed on; a text with another one is refused.
 */

import { Unsupported } from '../errors.ts'

/** First and last code points that are mapped, or have no case in any version. */
const KNOWN: readonly [first: number, last: number][] = [
  [0x0000, 0x019a], // Latin; U+019B has had an upper case since version 16 alone
  [0x019c, 0x024f],
  [0x0300, 0x0344], // combining marks, but U+0345, which is a letter in upper case
  [0x0346, 0x036f],
  [0x0370, 0x052f], // Greek and Cyrillic
  [0x0590, 0x109f], // Hebrew, Arabic, and scripts of India and its neighbours
  [0x2000, 0x20ff], // punctuation and currencies
  [0x3000, 0x9fff], // Chinese and Japanese
  [0xac00, 0xd7a3], // Korean
  [0xfe00, 0xfe0f], // variation selectors
  [0xfeff, 0xfeff],
  [0x1f000, 0x1faff], // emoji
]
// What `toUpperCase` and `toLowerCase` map to two code points, and the node to one.
const UPPER = new Map([['ß', 'ẞ']])
const LOWER = new Map([['İ', 'i']])
const ASCII = /^[\0-\x7f]*$/

export function upper(text: string): string {
  if (ASCII.test(text)) return text.toUpperCase()
  return mapped(text, 'upper', (point) => UPPER.get(point) ?? only(point, point.toUpperCase()))
}

export function lower(text: string): string {
  if (ASCII.test(text)) return text.toLowerCase()
  return mapped(text, 'lower', (point) => LOWER.get(point) ?? only(point, point.toLowerCase()))
}

/** A mapping to several code points is none. */
function only(point: string, made: string): string {
  return made.length === point.length ? made : point
}

function mapped(text: string, fn: string, map: (point: string) => string): string {
  let made = ''
  for (const point of text) {
    const code = point.codePointAt(0) ?? 0
    if (!KNOWN.some(([first, last]) => code >= first && code <= last)) {
      const shown = `U+${code.toString(16).toUpperCase().padStart(4, '0')}`
      throw new Unsupported(`${fn} of ${shown} is not computed in JavaScript`)
    }
    made += map(point)
  }
  return made
}
