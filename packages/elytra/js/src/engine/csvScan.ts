/**
 * Readers of CSV records that are generated for the columns of a plan: one pass over the bytes, in
 * which fields that are not needed are skipped, and others become numbers and codes of texts.
 *
 * A reader stops in front of a record that is not plain (a doubled quote, a value of another form,
 * another number of fields, a blank line): `CsvReader` reads that one with all care.
 *
 *   for each record:   skip 2 fields | whole number | skip 1 | text | … LF
 */

import type { Target } from './csvFields.ts'
import { HASH_FACTOR } from './dictionary.ts'
import { generated } from './generated.ts'
import { integerRange, isFloat, isInteger, type Type } from './types.ts'

/** Where a reader has stopped. */
export interface ScanState {
  at: number
  row: number
  /** Lines of the records that were read. */
  lines: number
}

/**
 * Reads records from `at`, while there are rows and bytes before `limit`, which follows a line end.
 */
export type Scan = (
  bytes: Uint8Array,
  at: number,
  limit: number,
  row: number,
  rows: number,
  targets: readonly (Target | null)[],
  state: ScanState,
) => void

/** Code that is longer is not optimized by V8: wide tables are read without a generated reader. */
const NEEDED_MAX = 100
/** These are bytes of numbers and times, which are read before the end of their field is known. */
const UNFIT_DELIMITER = /[0-9A-Za-z+\-.: ]/
const POWERS = Array.from({ length: 23 }, (_, exponent) => 10 ** exponent)

/**
 * The reader of a layout, null where there is none.
 *
 * @param types the type of each field of a record, null for one that is not needed.
 */
export function scanOf(types: readonly (Type | null)[], delimiter: number): Scan | null {
  if (UNFIT_DELIMITER.test(String.fromCharCode(delimiter))) return null
  if (types.filter((type) => type !== null).length > NEEDED_MAX) return null
  return generated<Scan>(code(types, delimiter), { POWERS })
}

function code(types: readonly (Type | null)[], delimiter: number): string {
  const heads: string[] = []
  const fields: string[] = []
  for (let at = 0; at < types.length; at += 1) {
    const type = types[at]
    const isLast = (until: number): boolean => until === types.length - 1
    if (!type) {
      let until = at
      while (until + 1 < types.length && !types[until + 1]) until += 1
      fields.push(skipped(until - at + 1, isLast(until), delimiter))
      at = until
      continue
    }
    heads.push(`const T${at} = T[${at}], N${at} = T${at}.nulls, V${at} = T${at}.values`)
    fields.push(needed(type, { at, isLast: isLast(at), delimiter }))
  }
  return `
    const P = R.POWERS
    return (B, at, limit, row, rows, T, S) => {
      ${heads.join('\n      ')}
      // from: the beginning of the record, where the reader stops; c: the byte at \`at\`
      let from = at, lines = 0, c = 0, d = 0, start = 0, more = 0
      records: while (row < rows && at < limit) {
        from = at
        more = 0
        c = B[at]
        if (c === 10 || c === 13) break
        ${fields.join('\n        ')}
        row += 1
        lines += 1 + more
        from = at
      }
      S.at = from
      S.row = row
      S.lines = lines
    }`
}

const STOP = 'break records'
/** Moves to the byte behind the closing quote; the last byte before the limit is a line end. */
const QUOTED = `for (;;) {
          c = B[++at]
          if (c === 34) { c = B[++at]; if (c !== 34) break }
          else if (c === 10) { more += 1; if (at >= limit - 1) ${STOP} }
        }`

/** Code that skips some fields. */
function skipped(count: number, isLast: boolean, delimiter: number): string {
  const one = `c = B[at]
        if (c === 34) ${QUOTED}
        while (c !== ${delimiter} && c !== 10) c = B[++at]`
  const between = `${one}
        if (c !== ${delimiter}) ${STOP}
        at += 1`
  const plain = isLast ? count - 1 : count
  const first =
    plain > 2
      ? `for (let n = ${plain}; n > 0; n -= 1) { ${between} }`
      : `${between}\n`.repeat(plain)
  return isLast ? `${first}\n${one}\nif (c !== 10) ${STOP}\nat += 1` : first
}

/** A needed field: the number of its column, and whether it is the last of a record. */
interface FieldPlace {
  at: number
  isLast: boolean
  delimiter: number
}

/** Code that is true if `c`, the byte at `place`, ends a field. */
function ends({ isLast, delimiter }: FieldPlace, place = 'at'): string {
  // Before the last line end is a carriage return, perhaps.
  return isLast ? `(c === 10 || (c === 13 && B[${place} + 1] === 10))` : `(c === ${delimiter})`
}

/** Code that reads one field into its target. */
function needed(type: Type, field: FieldPlace): string {
  const { at, isLast } = field
  return `{
          start = at
          c = B[at]
          ${plain(type, field)}
          if (isRead) {}
          else if (start === at && ${ends(field)}) { N${at}[row] = 1; T${at}.hasNulls = true }
          else { at = start; ${general(type, field)} }
          ${isLast ? 'at += c === 13 ? 2 : 1' : 'at += 1'}
        }`
}

/** Code that reads a field of the usual form, and sets `isRead`; `at` is behind what it has read. */
function plain(type: Type, field: FieldPlace): string {
  if (type.name === 'Utf8') return text(field)
  if (isInteger(type)) return whole(type, field)
  if (isFloat(type)) return float(type, field)
  const size = type.name === 'Date' ? 10 : type.name === 'Timestamp' ? 19 : 0
  if (size === 0) return 'const isRead = false'
  // Bytes that are read as a time have no delimiter and no line end among them.
  return `const stop = at + ${size}
          let isRead = false
          if (stop < limit) {
            c = B[stop]
            if (${ends(field, 'stop')} && T${field.at}.store(B, start, stop, row)) { isRead = true; at = stop }
            else c = B[at]
          }`
}

/** Up to nine digits, which fit into 32 bits. */
function whole(type: Type, field: FieldPlace): string {
  const [low, high] = integerRange(type)
  const isNarrow = low > -999_999_999n || high < 999_999_999n
  const fits = isNarrow ? ` && value >= ${low} && value <= ${high}` : ''
  return `const isNegative = c === 45
          if (isNegative) c = B[++at]
          const first = at
          let m = 0
          while ((d = (c - 48) >>> 0) < 10) { m = (Math.imul(m, 10) + d) | 0; c = B[++at] }
          const value = isNegative ? 0 - m : m
          const isRead = at > first && at < first + 10 && ${ends(field)}${fits}
          if (isRead) V${field.at}[row] = value`
}

/**
 * Up to 15 digits, with a point: the digits as a whole number and the power of ten are exact doubles,
 * so that their quotient is the nearest one (Clinger, "How to read floating point numbers
 * accurately", 1990).
 */
function float(type: Type, field: FieldPlace): string {
  const value = type.name === 'Float32' ? 'Math.fround(value)' : 'value'
  return `const isNegative = c === 45
          if (isNegative) c = B[++at]
          const first = at
          let m = 0
          while ((d = (c - 48) >>> 0) < 10) { m = (Math.imul(m, 10) + d) | 0; c = B[++at] }
          let digits = at - first, scale = 0
          if (c === 46) {
            c = B[++at]
            const point = at
            while ((d = (c - 48) >>> 0) < 10) { m = (Math.imul(m, 10) + d) | 0; c = B[++at] }
            scale = at - point
            digits += scale
          }
          const isRead = digits > 0 && digits < 16 && ${ends(field)}
          if (isRead) {
            let size = m
            if (digits > 9) {
              size = 0
              for (let place = first; place < at; place += 1) if (B[place] !== 46) size = size * 10 + (B[place] - 48)
            }
            if (scale > 0) size /= P[scale]
            const value = isNegative ? -size : size
            V${field.at}[row] = ${value}
          }`
}

/** A text without quotes, or in quotes that are not doubled. */
function text(field: FieldPlace): string {
  const { at, isLast, delimiter } = field
  const hashed = `hash = (Math.imul(hash, ${HASH_FACTOR}) + c) | 0; c = B[++at]`
  // A carriage return is a part of the text, but for one before the last line end.
  const isOther = isLast
    ? `c !== ${delimiter} && c !== 10 && !(c === 13 && B[at + 1] === 10)`
    : `c !== ${delimiter} && c !== 10`
  return `let hash = 0, first = at, stop = 0
          if (c === 34) {
            first += 1
            c = B[++at]
            while (c !== 34) { if (c === 10) { more += 1; if (at >= limit - 1) ${STOP} } ${hashed} }
            stop = at
            c = B[++at]
          } else {
            while (${isOther}) { ${hashed} }
            stop = at
          }
          if (!${ends(field)}) ${STOP}
          const isRead = at > start
          if (isRead) {
            const found = T${at}.dictionary.code(B, first, stop, hash)
            if (found < 0) ${STOP}
            V${at}[row] = found
          }`
}

/** A field of any form, by the function of its target. */
function general(type: Type, { at, isLast, delimiter }: FieldPlace): string {
  if (type.name === 'Utf8') return STOP
  // A value beyond 2^53 has changed the target's array: the careful reader continues.
  return `c = B[at]
            let first = at, stop = 0
            if (c === 34) {
              first += 1
              c = B[++at]
              while (c !== 34) { if (c === 10) ${STOP}; c = B[++at] }
              stop = at
              c = B[++at]
              ${isLast ? 'if (c === 13 && B[at + 1] === 10) c = B[++at]' : ''}
            } else {
              while (c !== ${delimiter} && c !== 10) c = B[++at]
              stop = at
              ${isLast ? 'if (stop > first && B[stop - 1] === 13) stop -= 1' : ''}
            }
            if (c !== ${isLast ? 10 : delimiter}) ${STOP}
            if (first === stop) { N${at}[row] = 1; T${at}.hasNulls = true }
            else if (!T${at}.store(B, first, stop, row) || T${at}.values !== V${at}) ${STOP}`
}
