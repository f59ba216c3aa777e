/** The bytes of one CSV field as a value. */

import { checkedDays, parseDay, parseTimestamp } from './calendar.ts'
import type { Values } from './batch.ts'
import { Dictionary } from './dictionary.ts'
import { narrowed } from './literals.ts'
import { integerRange, isFloat, TICKS, type Type } from './types.ts'

/** Stores the value of the bytes from `start` to `end`; false if they are no value of its type. */
export type Store = (bytes: Uint8Array, start: number, end: number, row: number) => boolean

/** A column that is being read: its values grow with the rows. */
export interface Target {
  values: Exclude<Values, string[]>
  nulls: Uint8Array
  hasNulls: boolean
  store: Store
  /** Of texts: `values` has its codes. */
  dictionary?: Dictionary
}

const ASCII = new TextDecoder('latin1')
const POWERS = Array.from({ length: 23 }, (_, exponent) => 10 ** exponent)
const NUMBER = /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i
const NAMED = /^([+-]?)(inf|infinity|nan)$/i
/**
 * A target for values of a type, with room for some rows.
 *
 * @param before the target of the batch before, whose dictionary goes on.
 */
export function targetOf(type: Type, rows: number, before?: Target | null): Target {
  const nulls = new Uint8Array(rows)
  if (type.name === 'Utf8') return textTarget(nulls, before?.dictionary)
  const values = type.name === 'Bool' ? new Uint8Array(rows) : new Float64Array(rows)
  const target: Target = { values, nulls, hasNulls: false, store: () => false }
  target.store = storeOf(type, target, rows)
  return target
}

function textTarget(nulls: Uint8Array, known: Dictionary | undefined): Target {
  const codes = new Int32Array(nulls.length)
  const dictionary = known && !known.isFull ? known : new Dictionary()
  const store: Store = (bytes, start, end, row) => {
    const code = dictionary.codeOf(bytes, start, end)
    codes[row] = code
    return code >= 0
  }
  return { values: codes, nulls, hasNulls: false, store, dictionary }
}

function storeOf(type: Type, target: Target, rows: number): Store {
  if (type.name === 'Bool') return storeBoolean(target)
  if (type.name === 'Date' || type.name === 'Timestamp') return storeTime(target, rows, type)
  return storeNumber(target, rows, type)
}

/** Numbers of at most 15 digits are exact in a double; others go by their text. */
function storeNumber(target: Target, rows: number, type: Type): Store {
  const put = putter(target, rows)
  const isWhole = !isFloat(type)
  const isSingle = type.name === 'Float32'
  const [low, high] = isWhole ? integerRange(type) : [0n, 0n]
  const [least, most] = [Number(low), Number(high)]
  return (bytes, start, end, row) => {
    let at = start
    while (at < end && isSpace(bytes[at])) at += 1
    let last = end
    while (last > at && isSpace(bytes[last - 1])) last -= 1
    const first = at
    const isNegative = bytes[at] === 45
    if (isNegative) at += 1
    let digits = 0
    let mantissa = 0
    let scale = -1
    for (; at < last; at += 1) {
      const digit = (bytes[at] ?? 0) - 48
      if (digit >= 0 && digit <= 9) {
        mantissa = mantissa * 10 + digit
        digits += 1
        if (scale >= 0) scale += 1
      } else if (digit === -2 && scale < 0 && !isWhole) {
        scale = 0
      } else {
        break
      }
    }
    if (at === last && digits > 0 && digits <= 15) {
      const size = scale > 0 ? mantissa / (POWERS[scale] ?? 1) : mantissa
      const value = isNegative ? -size : size
      if (isWhole && (value < least || value > most)) return false
      put(row, isWhole ? value + 0 : isSingle ? Math.fround(value) : value)
      return true
    }
    const text = ASCII.decode(bytes.subarray(first, last))
    const value = isWhole ? wholeOf(text, low, high) : floatOf(text, isSingle)
    if (value === null) return false
    put(row, value)
    return true
  }
}

function isSpace(byte: number | undefined): boolean {
  return byte === 32 || byte === 9
}

function wholeOf(text: string, low: bigint, high: bigint): number | bigint | null {
  if (!/^-?\d{1,40}$/.test(text)) return null
  const value = BigInt(text)
  return value < low || value > high ? null : narrowed(value)
}

function floatOf(text: string, isSingle: boolean): number | null {
  const named = NAMED.exec(text)
  if (named) {
    const size = named[2]?.toLowerCase() === 'nan' ? NaN : Infinity
    return named[1] === '-' ? -size : size
  }
  if (!NUMBER.test(text)) return null
  return isSingle ? Math.fround(Number(text)) : Number(text)
}

/** `2013-01-31` and `2013-01-31 05:06:07` by their digits; other spellings by their text. */
function storeTime(target: Target, rows: number, type: Type): Store {
  const put = putter(target, rows)
  const isDay = type.name === 'Date'
  const slow = storeParsed(target, rows, isDay ? parseDay : (text) => parseTimestamp(text, type))
  const ticks = TICKS[type.unit ?? 's']
  const isPlain = isDay || (type.zone === undefined && ticks <= 1e6)
  const size = isDay ? 10 : 19
  // Of the day before: a column often has the same one many times.
  let known = -1
  let knownDays: number | null = null
  return (bytes, start, end, row) => {
    if (end - start !== size || !isPlain) return slow(bytes, start, end, row)
    const day = dayDigits(bytes, start)
    const seconds = isDay ? 0 : clockSeconds(bytes, start + 10)
    if (day < 0 || seconds < 0) return false
    if (day !== known) {
      known = day
      knownDays = checkedDays(Math.floor(day / 1e4), Math.floor(day / 100) % 100, day % 100)
    }
    if (knownDays === null) return false
    put(row, isDay ? knownDays : (knownDays * 86_400 + seconds) * ticks)
    return true
  }
}

/** Two digits as a number; far below 0 if they are none. */
function two(bytes: Uint8Array, at: number): number {
  const high = (bytes[at] ?? 0) - 48
  const low = (bytes[at + 1] ?? 0) - 48
  return high >= 0 && high <= 9 && low >= 0 && low <= 9 ? high * 10 + low : -1e9
}

/** The digits of `2013-01-31` as one number, below 0 if it has another form. */
function dayDigits(bytes: Uint8Array, at: number): number {
  if (bytes[at + 4] !== 45 || bytes[at + 7] !== 45) return -1
  const year = two(bytes, at) * 100 + two(bytes, at + 2)
  return year * 10_000 + two(bytes, at + 5) * 100 + two(bytes, at + 8)
}

/** Seconds of ` 05:06:07` or `T05:06:07`, below 0 if it has another form. */
function clockSeconds(bytes: Uint8Array, at: number): number {
  const isSeparated = bytes[at] === 32 || bytes[at] === 84
  if (!isSeparated || bytes[at + 3] !== 58 || bytes[at + 6] !== 58) return -1
  const [hour, minute, second] = [two(bytes, at + 1), two(bytes, at + 4), two(bytes, at + 7)]
  if (hour > 23 || minute > 59 || second > 59) return -1
  return hour * 3600 + minute * 60 + second
}

function storeParsed(
  target: Target,
  rows: number,
  parse: (text: string) => number | bigint | null,
): Store {
  const put = putter(target, rows)
  return (bytes, start, end, row) => {
    const value = parse(ASCII.decode(bytes.subarray(start, end)))
    if (value === null) return false
    put(row, value)
    return true
  }
}

const TRUE = [116, 114, 117, 101]
const FALSE = [102, 97, 108, 115, 101]

/** `true` and `false` in any case. */
function storeBoolean({ values }: Target): Store {
  return (bytes, start, end, row) => {
    const isTrue = spells(bytes, start, end, TRUE)
    values[row] = Number(isTrue)
    return isTrue || spells(bytes, start, end, FALSE)
  }
}

function spells(bytes: Uint8Array, start: number, end: number, word: readonly number[]): boolean {
  if (end - start !== word.length) return false
  // A letter and its capital differ in one bit; no other byte that differs in it alone is compared.
  return word.every((letter, at) => ((bytes[start + at] ?? 0) | 32) === letter)
}

/** Puts numbers into a target; the first beyond 2^53 makes its values bigints. */
function putter(target: Target, rows: number): (row: number, value: number | bigint) => void {
  return (row, value) => {
    if (typeof value === 'bigint' && target.values instanceof Float64Array) {
      const big = value > 2n ** 63n - 1n ? new BigUint64Array(rows) : new BigInt64Array(rows)
      for (let at = 0; at < row; at += 1) big[at] = BigInt(target.values[at] ?? 0)
      target.values = big
    }
    const { values } = target
    if (values instanceof BigInt64Array || values instanceof BigUint64Array)
      values[row] = BigInt(value)
    else (values as Float64Array)[row] = Number(value)
  }
}
