/** Values of the engine, and their spelling in plans. */

import { UsageError } from '../errors.ts'
import { daysText, parseDay, parseTimestamp, timestampText } from './calendar.ts'
import { isFloat, isInteger, integerRange, typeText, type Type } from './types.ts'

/**
 * One value: a boolean, a text, a float, or a whole number (an integer, the days of a Date, the ticks
 * of a Timestamp), which is a bigint where it may exceed 2^53.
 */
export type Value = boolean | string | number | bigint

/** Read a value from its canonical spelling, or a text constant next to a date. */
export function readLiteral(spelled: string | boolean | null, type: Type): Value | null {
  if (spelled === null) return null
  if (type.name === 'Bool' && typeof spelled === 'boolean') return spelled
  const value = typeof spelled === 'string' ? readText(spelled, type) : null
  if (value !== null) return value
  throw new UsageError(`${String(spelled).slice(0, 80)} is not a value of type ${typeText(type)}`)
}

function readText(text: string, type: Type): Value | null {
  if (type.name === 'Utf8') return text
  if (isInteger(type)) return readInteger(text, type)
  if (isFloat(type)) return readFloat(text)
  if (type.name === 'Date') return parseDay(text)
  if (type.name === 'Timestamp') return parseTimestamp(text, type)
  return null
}

function readInteger(text: string, type: Type): number | bigint | null {
  if (!/^-?\d{1,20}$/.test(text)) return null
  const [low, high] = integerRange(type)
  const value = BigInt(text)
  if (value < low || value > high) return null
  return narrowed(value)
}

/** A whole number as a double where that is exact. */
export function narrowed(value: bigint): number | bigint {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

function readFloat(text: string): number | null {
  const named: Record<string, number> = { inf: Infinity, '-inf': -Infinity, nan: NaN }
  if (Object.hasOwn(named, text)) return named[text] ?? null
  const parts = /^(-?)0x([01])(?:\.([0-9a-f]{1,13}))?p([+-]\d{1,4})$/.exec(text)
  if (!parts) return null
  const [, sign, head, digits = '', exponent] = parts
  const mantissa = Number(head) + Number(`0x${digits || '0'}`) / 16 ** digits.length
  // In two steps: 2^-1074 alone leaves no room for the mantissa.
  const half = Math.trunc(Number(exponent) / 2)
  return (sign ? -1 : 1) * mantissa * 2 ** half * 2 ** (Number(exponent) - half)
}

/** The text of a value for results: dates and times in ISO 8601, other values as they are. */
export function shownValue(value: Value | null, type: Type): Value | null {
  if (value === null) return null
  if (type.name === 'Date') return daysText(Number(value))
  if (type.name === 'Timestamp') return timestampText(BigInt(value), type)
  return typeof value === 'bigint' ? narrowed(value) : value
}
