/** Conversions between types: which there are, and what a text means. */

import { parseDay, parseTimestamp } from './calendar.ts'
import { integerRange, isFloat, isInteger, isNumber, sameType, type Type } from './types.ts'

/** Whether there is a cast between the types. */
export function castable(from: Type, to: Type): boolean {
  if (sameType(from, to)) return true
  if (isNumber(from) && isNumber(to)) return true
  const targets: Record<string, boolean> = {
    number: to.name === 'Bool' || (to.name === 'Utf8' && isInteger(from)),
    Bool: to.name === 'Utf8' || isInteger(to),
    Utf8: to.name !== 'Null',
    Date: to.name === 'Utf8' || (to.name === 'Timestamp' && to.zone === undefined),
    Timestamp: to.name === 'Date' || sameZone(from, to),
  }
  return targets[isNumber(from) ? 'number' : from.name] ?? false
}

function sameZone(from: Type, to: Type): boolean {
  return to.name === 'Timestamp' && (from.zone === undefined) === (to.zone === undefined)
}

const FLOAT = /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i
const NAMED_FLOAT = /^([+-]?)(inf|infinity|nan)$/i

/** The value of a whole text, without spaces around; null if it is none of the type. */
export function readCast(text: string, to: Type): boolean | number | bigint | null {
  if (to.name === 'Bool') {
    const lower = text.toLowerCase()
    return lower === 'true' ? true : lower === 'false' ? false : null
  }
  if (isInteger(to)) {
    if (!/^[+-]?\d{1,4000}$/.test(text)) return null
    const value = BigInt(text.startsWith('+') ? text.slice(1) : text)
    const [low, high] = integerRange(to)
    if (value < low || value > high) return null
    const number = Number(value)
    return Number.isSafeInteger(number) ? number : value
  }
  if (isFloat(to)) return readFloat(text, to)
  return to.name === 'Date' ? parseDay(text) : parseTimestamp(text, to)
}

function readFloat(text: string, to: Type): number | null {
  const named = NAMED_FLOAT.exec(text)
  if (named) {
    const size = named[2]?.toLowerCase() === 'nan' ? NaN : Infinity
    return named[1] === '-' ? -size : size
  }
  if (!FLOAT.test(text)) return null
  return to.name === 'Float32' ? Math.fround(Number(text)) : Number(text)
}
