/** The data types that the engine computes with; others are refused by name. */

import { SennitError, Unsupported } from '../errors.ts'

export type TypeName =
  | 'Bool'
  | 'Int8'
  | 'Int16'
  | 'Int32'
  | 'Int64'
  | 'UInt8'
  | 'UInt16'
  | 'UInt32'
  | 'UInt64'
  | 'Float32'
  | 'Float64'
  | 'Utf8'
  | 'Date'
  | 'Timestamp'
  | 'Null'

export type Unit = 's' | 'ms' | 'us' | 'ns'

/** A data type; `Null` is that of a NULL without one. */
export interface Type {
  name: TypeName
  unit?: Unit
  zone?: string
}

export interface Field {
  name: string
  type: Type
}

export const BOOL: Type = { name: 'Bool' }
export const INT64: Type = { name: 'Int64' }
export const UINT64: Type = { name: 'UInt64' }
export const FLOAT64: Type = { name: 'Float64' }
export const UTF8: Type = { name: 'Utf8' }
export const DATE: Type = { name: 'Date' }
export const NULL: Type = { name: 'Null' }

/** Ticks of a second. */
export const TICKS: Record<Unit, number> = { s: 1, ms: 1e3, us: 1e6, ns: 1e9 }
const UNITS: readonly Unit[] = ['s', 'ms', 'us', 'ns']

const PLAIN = /^(Bool|Int8|Int16|Int32|Int64|UInt8|UInt16|UInt32|UInt64|Float32|Float64|Utf8|Date)$/

/**
 * The type of a name as plans have it.
 *
 * @throws Unsupported if the engine does not compute with such values.
 */
export function parseType(text: string): Type {
  if (PLAIN.test(text)) return { name: text as TypeName }
  const stamp = /^Timestamp\((s|ms|us|ns)(?:,([^()]+))?\)$/.exec(text)
  if (!stamp) throw new Unsupported(`values of type ${text} are not computed in JavaScript`)
  const unit = stamp[1] as Unit
  return stamp[2] === undefined
    ? { name: 'Timestamp', unit }
    : { name: 'Timestamp', unit, zone: stamp[2] }
}

export function typeText(type: Type): string {
  if (type.name !== 'Timestamp') return type.name
  return `Timestamp(${type.unit}${type.zone === undefined ? '' : `,${type.zone}`})`
}

export function sameType(a: Type, b: Type): boolean {
  return typeText(a) === typeText(b)
}

export function isInteger({ name }: Type): boolean {
  return name.startsWith('Int') || name.startsWith('UInt')
}

export function isFloat({ name }: Type): boolean {
  return name.startsWith('Float')
}

export function isNumber(type: Type): boolean {
  return isInteger(type) || isFloat(type)
}

/** Whether values of the type may exceed what a double holds exactly. */
export function isWide({ name }: Type): boolean {
  return name === 'Int64' || name === 'UInt64' || name === 'Timestamp'
}

/** The smallest and the largest value of an integer type. */
export function integerRange({ name }: Type): [bigint, bigint] {
  const bits = BigInt(name.replace(/\D/g, ''))
  return name.startsWith('U')
    ? [0n, 2n ** bits - 1n]
    : [-(2n ** (bits - 1n)), 2n ** (bits - 1n) - 1n]
}

/** The type of arithmetic on one number of the type. */
export function wide(type: Type): Type {
  if (isFloat(type)) return FLOAT64
  return type.name === 'UInt64' ? UINT64 : INT64
}

/** The type in which values of both types are compared, null when there is none. */
export function join(a: Type, b: Type): Type | null {
  if (a.name === 'Null' || sameType(a, b)) return b
  if (b.name === 'Null') return a
  if (isNumber(a) && isNumber(b)) return joinNumbers(a, b)
  const stamps = [a, b].filter(({ name }) => name === 'Timestamp')
  const [one, two] = stamps
  if (one && two) {
    if ((one.zone === undefined) !== (two.zone === undefined)) return null
    return UNITS.indexOf(one.unit ?? 's') >= UNITS.indexOf(two.unit ?? 's') ? one : two
  }
  const hasDate = a.name === 'Date' || b.name === 'Date'
  return one && hasDate && one.zone === undefined ? one : null
}

function joinNumbers(a: Type, b: Type): Type {
  if (isFloat(a) || isFloat(b)) return FLOAT64
  for (const type of [a, b]) if (widens(a, type) && widens(b, type)) return type
  // Of UInt64 and a signed type no 64 bits hold all values; the node makes decimals of them.
  if (a.name === 'UInt64' || b.name === 'UInt64')
    throw new Unsupported(`${a.name} and ${b.name} in one column are not computed in JavaScript`)
  return INT64
}

/** Whether every integer of one type is one of the other. */
export function widens(from: Type, to: Type): boolean {
  const [[low, high], [least, most]] = [integerRange(from), integerRange(to)]
  return least <= low && high <= most
}

/** A value for which an expression has none: an overflow, or a cast that does not fit. */
export class ValueOutOfRange extends SennitError {
  constructor(message: string, hint: string | null = null) {
    super(message, { code: 'value-out-of-range', hint })
  }
}

/** Operands of types that a function does not take. */
export class TypeMismatch extends SennitError {
  constructor(message: string, hint: string | null = null) {
    super(message, { code: 'type-mismatch', hint })
  }
}
