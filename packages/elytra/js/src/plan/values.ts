/** Constants of expressions: their types, and the one spelling that each value has in a plan. */

import { UsageError } from '../errors.ts'

/** A JavaScript value that can be a constant of an expression. */
export type Constant = boolean | number | bigint | string | Uint8Array | Date | null

/** A constant as it is spelled in a plan; only NULL may go without a type. */
export interface LiteralJson {
  lit: string | boolean | null
  type?: string
}

const INT64_MIN = -(2n ** 63n)
const INT64_END = 2n ** 63n
const UINT64_END = 2n ** 64n
const TYPES = /^(Bool|U?Int(8|16|32|64)|Float(32|64)|Utf8|Binary|Date|Time|Duration)$/
const PARAMETRIC = /^(Decimal\([0-9]{1,2},[0-9]{1,2}\)|Timestamp\((s|ms|us|ns)(,[^()]+)?\))$/

/**
 * The literal of a value. A whole number is an Int64, any other a Float64, a Date a
 * Timestamp(us,UTC); `type` says otherwise.
 *
 * @throws UsageError if the value has another type or does not fit.
 */
export function spellLiteral(value: Constant, type?: string): LiteralJson {
  if (type !== undefined) checkType(type)
  if (value === null) return type === undefined ? { lit: null } : { lit: null, type }
  const chosen = type ?? typeOf(value)
  return { lit: spell(value, chosen), type: chosen }
}

/** Refuse what is not the canonical name of a data type. */
export function checkType(type: string): string {
  if (TYPES.test(type) || PARAMETRIC.test(type) || /^(List|Struct)\(.+\)$/.test(type)) return type
  throw new UsageError(
    `${JSON.stringify(type)} is not a data type`,
    'such as Int64, Float64, Utf8, Bool, Date, Timestamp(us) or Decimal(18,2)',
  )
}

function typeOf(value: Exclude<Constant, null>): string {
  switch (typeof value) {
    case 'boolean':
      return 'Bool'
    case 'string':
      return 'Utf8'
    case 'number':
      // Of numbers beyond 2^53 it is not known which integer was meant.
      if (Number.isInteger(value) && !Number.isSafeInteger(value))
        throw new UsageError(
          `${value} is not an exact integer in JavaScript`,
          `write ${BigInt(value)}n, or lit(${value}, 'Float64')`,
        )
      return Number.isInteger(value) && !Object.is(value, -0) ? 'Int64' : 'Float64'
    case 'bigint':
      if (value >= INT64_MIN && value < INT64_END) return 'Int64'
      if (value >= 0n && value < UINT64_END) return 'UInt64'
      return `Decimal(${String(value < 0n ? -value : value).length},0)`
    case 'object':
      if (value instanceof Uint8Array) return 'Binary'
      if (value instanceof Date) return 'Timestamp(us,UTC)'
  }
  throw new UsageError(`${String(value)} cannot be a constant of an expression`)
}

function spell(value: Exclude<Constant, null>, type: string): string | boolean {
  const spelled = spelledAs(value, type)
  if (spelled !== null) return spelled
  throw new UsageError(`${String(value)} is not a value of type ${type}`)
}

function spelledAs(value: Exclude<Constant, null>, type: string): string | boolean | null {
  if (type === 'Bool') return typeof value === 'boolean' ? value : null
  if (type === 'Utf8') return typeof value === 'string' ? wellFormed(value) : null
  if (type === 'Binary') return value instanceof Uint8Array ? base64(value) : null
  if (type.startsWith('Float')) return typeof value === 'number' ? spellFloat(value, type) : null
  if (type.includes('Int')) return spellInteger(value, type)
  if (type.startsWith('Decimal')) return spellDecimal(value, type)
  if (type.startsWith('Timestamp')) return spellTimestamp(value, type)
  if (type === 'Date') return typeof value === 'string' && isDate(value) ? value : null
  return typeof value === 'string' ? value : null
}

function wellFormed(text: string): string {
  // Half of a surrogate pair has no UTF-8 form: the node would receive another text.
  if (/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/.test(text))
    throw new UsageError('a text has half of a surrogate pair, which UTF-8 cannot express')
  return text
}

function spellInteger(value: unknown, type: string): string | null {
  const whole = typeof value === 'bigint' || Number.isSafeInteger(value)
  if (!whole) return null
  const number = BigInt(value as number | bigint)
  const bits = BigInt(type.replace(/\D/g, ''))
  const [low, end] = type.startsWith('U')
    ? [0n, 2n ** bits]
    : [-(2n ** (bits - 1n)), 2n ** (bits - 1n)]
  return number >= low && number < end ? String(number) : null
}

function spellDecimal(value: unknown, type: string): string | null {
  const [precision = 0, scale = 0] = (type.match(/\d+/g) ?? []).map(Number)
  const text = typeof value === 'string' || typeof value === 'bigint' ? String(value) : null
  const digits = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text ?? String(Number.isInteger(value) && value))
  if (!digits) return null
  const [, sign = '', whole = '', part = ''] = digits
  const trimmed = whole.replace(/^0+(?=\d)/, '')
  const used = trimmed === '0' ? 0 : trimmed.length
  if (/[1-9]/.test(part.slice(scale)) || used > precision - scale) return null
  const padded = part.slice(0, scale).padEnd(scale, '0')
  const isZero = /^0*$/.test(trimmed + padded)
  return `${isZero ? '' : sign}${trimmed}${scale ? `.${padded}` : ''}`
}

function spellTimestamp(value: unknown, type: string): string | null {
  const zoned = type.includes(',')
  if (!(value instanceof Date) || Number.isNaN(value.getTime())) return null
  if (!zoned)
    throw new UsageError(
      `a Date is a moment in UTC, and ${type} has no zone`,
      "compare with a text, such as col('at').ge('2013-01-31 05:00:00')",
    )
  const iso = value.toISOString().slice(0, -1) // with milliseconds, without the Z
  if (type.startsWith('Timestamp(us')) return `${iso}000Z`
  if (type.startsWith('Timestamp(ms')) return `${iso}Z`
  return type.startsWith('Timestamp(s') && iso.endsWith('.000') ? `${iso.slice(0, -4)}Z` : null
}

function isDate(text: string): boolean {
  return /^\d{4}-\d{2}-\d{2}$/.test(text) && new Date(text).toISOString().startsWith(text)
}

function base64(bytes: Uint8Array): string {
  let binary = ''
  for (const byte of bytes) binary += String.fromCharCode(byte)
  return btoa(binary)
}

function spellFloat(value: number, type: string): string | null {
  const stored = type === 'Float32' ? Math.fround(value) : value
  return Number.isFinite(value) && !Number.isFinite(stored) ? null : hexFloat(stored)
}

/** A double in C99 hexadecimal as Python writes it: `0x1.8000000000000p+1`, `inf`, `nan`. */
export function hexFloat(value: number): string {
  if (Number.isNaN(value)) return 'nan'
  const sign = value < 0 || Object.is(value, -0) ? '-' : ''
  if (!Number.isFinite(value)) return `${sign}inf`
  if (value === 0) return `${sign}0x0.0p+0`
  const bits = new DataView(new ArrayBuffer(8))
  bits.setFloat64(0, value)
  const field = (bits.getUint16(0) >> 4) & 0x7ff
  const mantissa = (bits.getBigUint64(0) & ((1n << 52n) - 1n)).toString(16).padStart(13, '0')
  const exponent = field === 0 ? -1022 : field - 1023
  return `${sign}0x${field === 0 ? 0 : 1}.${mantissa}p${exponent < 0 ? '' : '+'}${exponent}`
}
