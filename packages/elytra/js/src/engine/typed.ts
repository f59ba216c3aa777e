/**
 * Expressions with their types, and explicit conversions: the rules of `emsqrt.expr` for the types
 * that JavaScript computes.
 */

import { Unsupported, UsageError } from '../errors.ts'
import type { ExprJson } from '../plan/json.ts'
import { readLiteral, type Value } from './literals.ts'
import { castable } from './casts.ts'
import { formatParts } from './dateFormats.ts'
import { CLOCK_UNITS, DAY_UNITS } from './dateUnits.ts'
import {
  BOOL,
  DATE,
  FLOAT64,
  INT64,
  integerRange,
  isFloat,
  isInteger,
  isNumber,
  join,
  NULL,
  parseType,
  sameType,
  TypeMismatch,
  typeText,
  UINT64,
  UTF8,
  wide,
  widens,
  type Field,
  type Type,
} from './types.ts'

/**
 * An expression with its type. `op` is a function's name or column, literal, cast, case; a case's
 * `args` are when, then, …, default. `fallible`: it may have no value for some rows, so that it is
 * computed only for rows that need it.
 */
export interface Typed {
  op: string
  type: Type
  args: readonly Typed[]
  /** A column's name, or a literal's value. */
  value: Value | null
  /** Of a cast: whether a value that does not fit is an error. */
  strict: boolean
  fallible: boolean
}

type CaseJson = Extract<ExprJson, { case: unknown }>

/** A typing rule: the result's type, and the operands with their conversions. */
type Rule = (fn: string, args: readonly Typed[]) => [Type, readonly Typed[]]

/**
 * The typed expression.
 *
 * @throws TypeMismatch for operands that a function does not take.
 * @throws Unsupported for functions and types that the engine does not compute.
 */
export function typed(expr: ExprJson, fields: readonly Field[]): Typed {
  if ('col' in expr) return column(expr.col, fields)
  if ('lit' in expr) return literal(expr.lit, expr.type)
  if ('fn' in expr)
    return called(
      expr.fn,
      expr.args.map((arg) => typed(arg, fields)),
    )
  if ('cast' in expr)
    return cast(typed(expr.cast, fields), parseType(expr.type), expr.strict !== false)
  if ('case' in expr) return choice(expr, fields)
  throw new UsageError(`an aggregate stands inside of an expression: ${expr.agg}`)
}

function node(op: string, type: Type, args: readonly Typed[], more: Partial<Typed> = {}): Typed {
  const fallible = args.some((arg) => arg.fallible)
  return { op, type, args, value: null, strict: true, fallible, ...more }
}

function column(name: string, fields: readonly Field[]): Typed {
  const field = fields.find((each) => each.name === name)
  if (field) return node('column', field.type, [], { value: name })
  throw new UsageError(
    `there is no column ${JSON.stringify(name)}`,
    `there are ${fields
      .map((each) => each.name)
      .slice(0, 20)
      .join(', ')}`,
  )
}

function literal(spelled: string | boolean | null, type: string | undefined): Typed {
  const kind = type === undefined ? NULL : parseType(type)
  return node('literal', kind, [], { value: readLiteral(spelled, kind) })
}

function cast(arg: Typed, to: Type, strict: boolean): Typed {
  if (sameType(arg.type, to)) return arg
  if (arg.type.name === 'Null') return node('literal', to, [], { value: null })
  if (!castable(arg.type, to))
    throw new Unsupported(`there is no cast from ${typeText(arg.type)} to ${typeText(to)}`)
  const fits = isInteger(arg.type) && (isInteger(to) ? widens(arg.type, to) : true)
  return node('cast', to, [arg], { strict, fallible: arg.fallible || (strict && !fits) })
}

function choice(expr: CaseJson, fields: readonly Field[]): Typed {
  const branches = expr.case.map(
    (branch) => [typed(branch.when, fields), typed(branch.then, fields)] as const,
  )
  const values = branches.map(([, then]) => then)
  const otherwise = expr.else ? typed(expr.else, fields) : node('literal', NULL, [])
  const type = common('case', [...values, otherwise])
  const args = branches.flatMap(([test, then]) => [expectBool('case', test), convert(then, type)])
  return node('case', type, [...args, convert(otherwise, type)])
}

function called(fn: string, args: readonly Typed[]): Typed {
  const rule = Object.hasOwn(RULES, fn) ? RULES[fn] : undefined
  if (!rule) throw new Unsupported(`${fn} is not computed in JavaScript`)
  const [type, operands] = rule(fn, args)
  const own = FALLIBLE.has(fn) && !isFloat(type)
  return node(fn, type, operands, { fallible: own || operands.some((arg) => arg.fallible) })
}

/** Functions of integers that may overflow, and those that refuse some texts. */
const FALLIBLE = new Set(
  'add sub mul idiv neg abs upper lower ilike repeat date_add date_diff make_date strptime'.split(
    ' ',
  ),
)

// Conversions

/** The value as one of another type, by a conversion that the rules insert. */
export function convert(arg: Typed, to: Type): Typed {
  if (sameType(arg.type, to) || to.name === 'Null') return arg
  if (arg.op === 'literal' && typeof arg.value === 'string' && arg.type.name === 'Utf8')
    return node('literal', to, [], { value: readText(arg.value, to) })
  return cast(arg, to, true)
}

function readText(text: string, to: Type): Value | null {
  try {
    return readLiteral(text, to)
  } catch {
    throw new TypeMismatch(
      `${JSON.stringify(text.slice(0, 80))} is not a value of type ${typeText(to)}`,
    )
  }
}

function all(args: readonly Typed[], type: Type): readonly Typed[] {
  return args.map((arg) => convert(arg, type))
}

/** The operands, each untyped NULL as one of its neighbours' type. */
function withoutNull(args: readonly Typed[], otherwise: Type = INT64): readonly Typed[] {
  const known = args.find((arg) => arg.type.name !== 'Null')
  return args.map((arg) =>
    arg.type.name === 'Null' ? convert(arg, known?.type ?? otherwise) : arg,
  )
}

function isText(arg: Typed): boolean {
  return arg.op === 'literal' && arg.type.name === 'Utf8'
}

/** The type in which all operands can be compared or returned. */
function common(fn: string, args: readonly Typed[], otherwise: Type = NULL): Type {
  const known = args.filter((arg) => arg.type.name !== 'Null')
  const [first, ...rest] = known
  if (!first) return otherwise
  let type = first.type
  for (const arg of rest) type = joined(fn, first, type, arg)
  return type
}

const FROM_TEXT = ['Date', 'Timestamp']

function joined(fn: string, first: Typed, type: Type, arg: Typed): Type {
  if (isText(arg) && FROM_TEXT.includes(type.name)) return type
  if (isText(first) && type.name === 'Utf8' && FROM_TEXT.includes(arg.type.name)) return arg.type
  if (arg.op === 'literal' && fitsInteger(arg, type)) return type
  const found = join(type, arg.type)
  if (found === null)
    throw new TypeMismatch(`${fn}: ${typeText(type)} and ${typeText(arg.type)} do not compare`)
  return found
}

function fitsInteger(arg: Typed, type: Type): boolean {
  if (!isInteger(arg.type) || !isInteger(type) || arg.value === null) return false
  const [low, high] = integerRange(type)
  const value = BigInt(arg.value as number | bigint)
  return low <= value && value <= high
}

// Rules

function numbers(fn: string, args: readonly Typed[]): void {
  for (const arg of args)
    if (!isNumber(arg.type) && arg.type.name !== 'Null')
      throw new TypeMismatch(`${fn} takes numbers, found ${typeText(arg.type)}`)
}

function wideInteger(fn: string, args: readonly Typed[]): Type {
  if (args.every((arg) => arg.type.name !== 'UInt64')) return INT64
  for (const arg of args) {
    const isConstant = arg.op === 'literal' && (arg.value === null || Number(arg.value) >= 0)
    if (!arg.type.name.startsWith('U') && !isConstant)
      throw new TypeMismatch(
        `${fn}: no integer type holds UInt64 and ${typeText(arg.type)}; cast one`,
      )
  }
  return UINT64
}

function arithmetic(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  const operands = withoutNull(args)
  numbers(fn, operands)
  const type = operands.some((arg) => isFloat(arg.type)) ? FLOAT64 : wideInteger(fn, operands)
  return [type, all(args, type)]
}

function integers(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  const operands = withoutNull(args)
  numbers(fn, operands)
  if (operands.some((arg) => !isInteger(arg.type))) throw new TypeMismatch(`${fn} takes integers`)
  const type = wideInteger(fn, operands)
  return [type, all(args, type)]
}

function remainder(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  numbers(fn, args)
  return args.some((arg) => isFloat(arg.type)) ? [FLOAT64, all(args, FLOAT64)] : integers(fn, args)
}

function floats(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  numbers(fn, args)
  return [FLOAT64, all(args, FLOAT64)]
}

function oneNumber(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  numbers(fn, args)
  const [arg] = withoutNull(args)
  if (!arg) throw new UsageError(`${fn} takes one argument`)
  if (fn === 'neg' && arg.type.name === 'UInt64')
    throw new TypeMismatch('a UInt64 has no negative; cast it first')
  const type = wide(arg.type)
  return [type, [convert(arg, type)]]
}

function rounding(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  const [arg, digits] = args
  const [type, operands] = oneNumber(fn, arg ? [arg] : [])
  if (!digits) return [type, operands]
  if (digits.op !== 'literal' || !isInteger(digits.type))
    throw new Unsupported('round takes a constant number of digits')
  const places = Number(digits.value)
  if (places < -15 || places > 15)
    throw new UsageError(`round takes -15 to 15 digits, not ${places}`)
  if (places < 0 && !isFloat(type)) throw new Unsupported(`round of an integer to ${places} digits`)
  return [type, [...operands, digits]]
}

function comparison(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  // Integers of any width are compared as they are.
  if (args.every((arg) => isInteger(arg.type))) return [BOOL, args]
  return [BOOL, all(args, common(fn, args, BOOL))]
}

function expectBool(fn: string, arg: Typed): Typed {
  if (arg.type.name === 'Null') return convert(arg, BOOL)
  if (arg.type.name !== 'Bool')
    throw new TypeMismatch(`${fn} takes conditions, found ${typeText(arg.type)}`)
  return arg
}

function logic(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  return [BOOL, args.map((arg) => expectBool(fn, arg))]
}

function same(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  const type = common(fn, args)
  return [type, all(args, type)]
}

function texts(result: Type, ...more: Type[]): Rule {
  return (fn, args) => {
    const operands = args.map((arg, at) => {
      const wanted = more[at] ?? UTF8
      if (arg.type.name === 'Null') return convert(arg, wanted)
      const fits = wanted.name === 'Int64' ? isInteger(arg.type) : sameType(arg.type, wanted)
      if (!fits) throw new TypeMismatch(`${fn} takes ${wanted.name}, found ${typeText(arg.type)}`)
      return convert(arg, wanted)
    })
    return [result, operands]
  }
}

/** As `texts`, where all operands but the first are constants. */
function constants(result: Type, ...more: Type[]): Rule {
  const rule = texts(result, ...more)
  return (fn, args) => {
    const [type, operands] = rule(fn, args)
    for (const arg of operands.slice(1))
      if (arg.op !== 'literal' || arg.value === null)
        throw new Unsupported(`${fn} with an operand that is not a constant`)
    return [type, operands]
  }
}

function datePart(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  const [arg] = withoutNull(args, DATE)
  const names = ['hour', 'minute', 'second'].includes(fn) ? ['Timestamp'] : ['Date', 'Timestamp']
  if (!arg || !names.includes(arg.type.name))
    throw new TypeMismatch(`${fn} takes ${names.join(' or ')}, found ${arg && typeText(arg.type)}`)
  return [INT64, [arg]]
}

/** A value, and a constant that names a unit; a Date has none of the clock. */
function unitOf(fn: string, unit: Typed | undefined, type: Type): string {
  const name = unit?.op === 'literal' && unit.type.name === 'Utf8' ? String(unit.value) : ''
  const isClock = CLOCK_UNITS.includes(name)
  if (!isClock && !DAY_UNITS.includes(name))
    throw new UsageError(`${fn} takes a unit: ${[...DAY_UNITS, ...CLOCK_UNITS].join(', ')}`)
  if (isClock && type.name === 'Date') throw new TypeMismatch(`${fn}: a Date has no ${name}`)
  return name
}

function dateValue(fn: string, arg: Typed | undefined): Typed {
  return datePart(fn, arg ? [arg] : [])[1][0] as Typed
}

function truncation(fn: string, [unit, value]: readonly Typed[]): [Type, readonly Typed[]] {
  const arg = dateValue(fn, value)
  unitOf(fn, unit, arg.type)
  return [arg.type, [arg, unit as Typed]]
}

const MICROS: Type = { name: 'Timestamp', unit: 'us' }

function difference(fn: string, [unit, ...ends]: readonly Typed[]): [Type, readonly Typed[]] {
  const found = common(fn, ends, MICROS)
  if (found.name !== 'Date' && found.name !== 'Timestamp')
    throw new TypeMismatch(`${fn} takes Dates or Timestamps, found ${typeText(found)}`)
  const isClock = CLOCK_UNITS.includes(unitOf(fn, unit, MICROS))
  const type = isClock && found.name === 'Date' ? MICROS : found
  if (ends.length !== 2) throw new UsageError(`${fn} takes a unit and two values`)
  return [INT64, [...all(ends, type), unit as Typed]]
}

/** Resolutions that have no such unit. */
const TOO_FINE: Readonly<Record<string, readonly string[]>> = {
  s: ['millisecond', 'microsecond'],
  ms: ['microsecond'],
}

function addition(fn: string, [unit, count, value]: readonly Typed[]): [Type, readonly Typed[]] {
  const arg = dateValue(fn, value)
  const name = unitOf(fn, unit, arg.type)
  if (TOO_FINE[arg.type.unit ?? '']?.includes(name))
    throw new Unsupported(`adding ${name}s to a ${typeText(arg.type)}`)
  return [arg.type, [arg, signed(fn, count), unit as Typed]]
}

function signed(fn: string, arg: Typed | undefined): Typed {
  const [found] = arg ? withoutNull([arg]) : []
  if (!found || !isInteger(found.type) || found.type.name === 'UInt64')
    throw new TypeMismatch(`${fn} takes signed integers, found ${found && typeText(found.type)}`)
  return convert(found, INT64)
}

function dayMade(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  if (args.length !== 3) throw new UsageError(`${fn} takes a year, a month and a day`)
  return [DATE, withoutNull(args).map((arg) => signed(fn, arg))]
}

function formatOf(fn: string, format: Typed | undefined): Typed {
  const isText = format?.op === 'literal' && format.type.name === 'Utf8' && format.value !== null
  if (!isText || !formatParts(String(format.value)))
    throw new UsageError(`${fn} takes a format of %Y %m %d %H %M %S %f %j %y %F %T %%`)
  return format
}

function dateText(fn: string, [value, format]: readonly Typed[]): [Type, readonly Typed[]] {
  return [UTF8, [dateValue(fn, value), formatOf(fn, format)]]
}

function dateRead(fn: string, [text, format]: readonly Typed[]): [Type, readonly Typed[]] {
  const [, operands] = texts(UTF8)(fn, text ? [text] : [])
  return [MICROS, [...operands, formatOf(fn, format)]]
}

function seconds(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  return [FLOAT64, datePart(fn, args)[1]]
}

function signOf(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  numbers(fn, args)
  const [arg] = withoutNull(args)
  if (!arg) throw new UsageError(`${fn} takes one argument`)
  return isFloat(arg.type) ? [FLOAT64, [convert(arg, FLOAT64)]] : [INT64, [arg]]
}

/** Most code points that repeat, lpad and rpad make of each. */
const CHARS_MAX = 65_536

/** As `constants`, with a number within bounds, and texts that are not empty. */
function bounded(test: (value: number) => boolean, ...more: Type[]): Rule {
  const rule = constants(UTF8, UTF8, ...more)
  return (fn, args) => {
    const [type, operands] = rule(fn, args)
    if (operands.length < more.length)
      throw new UsageError(`${fn} takes ${more.length + 1} arguments`)
    for (const { value } of operands.slice(1))
      if (typeof value === 'string' ? value === '' : !test(Number(value)))
        throw new UsageError(`${fn} does not take ${JSON.stringify(String(value))}`)
    return [type, operands]
  }
}

function isCount(value: number): boolean {
  return value >= 0 && value <= CHARS_MAX
}

function nanTest(fn: string, args: readonly Typed[]): [Type, readonly Typed[]] {
  const [arg] = withoutNull(args, FLOAT64)
  if (!arg || !isFloat(arg.type)) throw new TypeMismatch(`${fn} takes a float`)
  return [BOOL, [arg]]
}

const RULES: Record<string, Rule> = {
  add: arithmetic,
  sub: arithmetic,
  mul: arithmetic,
  div: floats,
  idiv: integers,
  mod: remainder,
  neg: oneNumber,
  abs: oneNumber,
  round: rounding,
  floor: rounding,
  ceil: rounding,
  trunc: rounding,
  sign: signOf,
  pi: (_, args) => [FLOAT64, args],
  // Others of mathematics differ in their last bit between libraries.
  sqrt: floats,
  eq: comparison,
  ne: comparison,
  lt: comparison,
  le: comparison,
  gt: comparison,
  ge: comparison,
  between: comparison,
  is_in: comparison,
  and: logic,
  or: logic,
  not: logic,
  is_null: (_, args) => [BOOL, args],
  is_nan: nanTest,
  coalesce: same,
  greatest: same,
  least: same,
  nullif: same,
  concat: texts(UTF8),
  length: texts(INT64),
  contains: constants(BOOL),
  starts_with: constants(BOOL),
  ends_with: constants(BOOL),
  like: constants(BOOL),
  ilike: constants(BOOL),
  upper: texts(UTF8),
  lower: texts(UTF8),
  strpos: constants(INT64),
  replace: constants(UTF8),
  reverse: texts(UTF8),
  left: constants(UTF8, UTF8, INT64),
  right: constants(UTF8, UTF8, INT64),
  substr: constants(UTF8, UTF8, INT64, INT64),
  trim: constants(UTF8),
  ltrim: constants(UTF8),
  rtrim: constants(UTF8),
  repeat: bounded(isCount, INT64),
  lpad: bounded(isCount, INT64, UTF8),
  rpad: bounded(isCount, INT64, UTF8),
  split_part: bounded((value) => value !== 0, UTF8, INT64),
  year: datePart,
  month: datePart,
  day: datePart,
  hour: datePart,
  minute: datePart,
  second: datePart,
  quarter: datePart,
  week: datePart,
  dow: datePart,
  isodow: datePart,
  doy: datePart,
  epoch: seconds,
  epoch_ms: datePart,
  date_trunc: truncation,
  date_diff: difference,
  date_add: addition,
  make_date: dayMade,
  strftime: dateText,
  strptime: dateRead,
  try_strptime: dateRead,
}

/** The functions that the engine computes, for the greeting of a worker. */
export const FUNCTIONS: readonly string[] = Object.keys(RULES)
