/**
 * JavaScript code of typed expressions: statements that compute one row.
 *
 * Names, texts and other constants of a plan never become code: columns are numbered, constants are
 * read from a list. What is generated consists of the texts in this module and of numbers.
 *
 * Whole numbers of 64 bits are doubles in a *narrow* kernel, which throws WIDEN at the first one
 * beyond 2^53, and bigints in a *wide* one.
 */

import { DATE_CALLS } from './emitDates.ts'
import { WIDEN } from './overflow.ts'
import { likeTest, lower } from './runtime.ts'
import type { Typed } from './typed.ts'
import { isFloat, isInteger, isWide, TICKS, type Type } from './types.ts'

/** A computed value: the name of a variable, and the condition under which it is NULL. */
export interface Emitted {
  value: string
  isNull: string
  /** Of a column of texts that is passed on: the variable of its code, and the number of the column. */
  code?: { value: string; index: number }
}

const NEVER = 'false'
const MAX = '9007199254740991'

/** How a column is stored in the batches of a kernel. */
export interface Layout {
  hasNulls: boolean
  /** Whether its whole numbers are in an array of bigints. */
  isBig: boolean
  /** Whether its texts are codes of a dictionary. */
  isCoded: boolean
  /** Whether it is read from words. */
  isWords: boolean
}

/** A condition on one column of codes: it is computed once for each text, before the loop. */
export interface TextTest {
  node: Typed
  /** The number of the column, and its name in `node`. */
  index: number
  name: string
}

/** Results of a `TextTest`, by code + 1; the first is that of NULL. */
export const TEST = { isFalse: 0, isTrue: 1, isNull: 2 } as const

/** Collects the statements of a row. */
export class Emitter {
  readonly lines: string[] = []
  readonly constants: unknown[] = []
  readonly tests: TextTest[] = []
  private variables = 0

  /** @param columns the variable of each column that was loaded or computed, by name. */
  constructor(
    readonly isWide: boolean,
    public columns: ReadonlyMap<string, Emitted>,
  ) {}

  /** Emit the statements of an expression. */
  emit(node: Typed): Emitted {
    if (node.op === 'column') return this.column(String(node.value))
    if (node.op === 'literal') return this.literal(node)
    const test = this.textTest(node)
    if (test) return test
    const special = SPECIAL[node.op]
    if (special) return special(this, node)
    const args = node.args.map((arg) => this.emit(arg))
    const simple = SIMPLE[node.op]
    if (!simple) throw new Error(`no code for ${node.op}`)
    return this.strict(
      args,
      simple(
        this,
        node,
        args.map((arg) => arg.value),
      ),
    )
  }

  /** The result of an expression that is NULL if an operand is. */
  strict(args: readonly Emitted[], code: Code): Emitted {
    const nulls = [...new Set(args.map((arg) => arg.isNull).filter((each) => each !== NEVER))]
    const isNull =
      nulls.length === 0
        ? NEVER
        : nulls.length === 1
          ? (nulls[0] ?? NEVER)
          : this.variable(nulls.join(' || '))
    if (!code.mayBeNull && !code.mayThrow) return { value: this.variable(code.text), isNull }
    // Not computed for NULL: the variables of a NULL hold anything.
    const value = this.declare(code.initial ?? '0')
    if (!code.mayBeNull) {
      this.guarded(isNull, `${value} = ${code.text}`)
      return { value, isNull }
    }
    const none = this.declare('true')
    this.guarded(
      isNull,
      `const made = ${code.text}; if (made !== null) { ${value} = made; ${none} = false }`,
    )
    return { value, isNull: none }
  }

  private guarded(isNull: string, statement: string): void {
    this.line(isNull === NEVER ? `{ ${statement} }` : `if (!(${isNull})) { ${statement} }`)
  }

  line(text: string): void {
    this.lines.push(text)
  }

  variable(code: string): string {
    const name = this.name()
    this.line(`const ${name} = ${code}`)
    return name
  }

  declare(initial: string): string {
    const name = this.name()
    this.line(`let ${name} = ${initial}`)
    return name
  }

  constant(value: unknown): string {
    this.constants.push(value)
    return `K${this.constants.length - 1}`
  }

  /** Whether values of a type are bigints here. */
  isBig(type: Type): boolean {
    return this.isWide && isWide(type)
  }

  private name(): string {
    this.variables += 1
    return `v${this.variables}`
  }

  /** The code of a condition on one column of codes; null for any other expression. */
  private textTest(node: Typed): Emitted | null {
    // One that may fail must not be computed for texts of rows that a filter drops.
    if (node.type.name !== 'Bool' || node.fallible || node.op === 'is_null') return null
    const [name, ...others] = columnsOf(node)
    const column = name === undefined ? undefined : this.columns.get(name)
    if (name === undefined || !column?.code || others.some((other) => other !== name)) return null
    const { value, index } = column.code
    this.tests.push({ node, index, name })
    const place = column.isNull === NEVER ? `${value} + 1` : `${column.isNull} ? 0 : ${value} + 1`
    const found = this.variable(`Q${this.tests.length - 1}[${place}]`)
    return { value: `(${found} === ${TEST.isTrue})`, isNull: `(${found} === ${TEST.isNull})` }
  }

  /** The variable of a column. */
  column(name: string): Emitted {
    const found = this.columns.get(name)
    if (!found) throw new Error('a column that was not loaded')
    return found
  }

  private literal({ value, type }: Typed): Emitted {
    if (value === null) return { value: emptyOf(type, this), isNull: 'true' }
    if (typeof value === 'boolean') return { value: String(value), isNull: NEVER }
    if (isInteger(type) || type.name === 'Date' || type.name === 'Timestamp') {
      if (this.isBig(type)) return { value: `${BigInt(value)}n`, isNull: NEVER }
      if (typeof value === 'bigint') throw WIDEN
      return { value: `(${value})`, isNull: NEVER }
    }
    // As a number it is a constant of the optimized code too.
    if (typeof value === 'number' && Number.isFinite(value) && value >= 0 && !Object.is(value, -0))
      return { value: `(${value})`, isNull: NEVER }
    return { value: this.constant(value), isNull: NEVER }
  }
}

/** A value of the type's representation, for a variable that is NULL. */
export function emptyOf(type: Type, emitter: Emitter): string {
  if (type.name === 'Utf8') return "''"
  if (type.name === 'Bool') return 'false'
  return emitter.isBig(type) ? '0n' : '0'
}

/** The names of the columns that an expression reads, each as often as it stands there. */
export function columnsOf(node: Typed): string[] {
  return node.op === 'column' ? [String(node.value)] : node.args.flatMap(columnsOf)
}

/** Code of one expression. */
interface Code {
  text: string
  /** It is null where the value does not fit. */
  mayBeNull?: boolean
  /** It may throw, so that it must not run for NULL. */
  mayThrow?: boolean
  initial?: string
}

export type Simple = (emitter: Emitter, node: Typed, args: readonly string[]) => Code
type Special = (emitter: Emitter, node: Typed) => Emitted

function whole(operator: string): Simple {
  return (emitter, node, [a = '', b = '']) => {
    if (isFloat(node.type)) return { text: `${a} ${operator} ${b}` }
    const initial = emptyOf(node.type, emitter)
    if (emitter.isWide) {
      const check = node.type.name === 'UInt64' ? 'uint64' : 'int64'
      return { text: `R.${check}(${a} ${operator} ${b})`, mayThrow: true, initial }
    }
    // Adding 0 makes +0 of -0, which no integer is.
    const made = emitter.declare('0')
    const isUnsigned = node.type.name === 'UInt64' ? `${made} < 0 ? R.overflow() : ` : ''
    const checked = `(${made} = ${a} ${operator} ${b} + 0, ${made} > ${MAX} || ${made} < -${MAX} ? W() : ${isUnsigned}${made})`
    return { text: checked, mayThrow: true, initial }
  }
}

function comparison(operator: string): Simple {
  return (_, node, [a = '', b = '']) => {
    const type = node.args[0]?.type
    const other = node.args[1]?.type
    if (type?.name === 'Utf8') return { text: textComparison(operator, a, b) }
    if (type && isFloat(type)) return { text: floatComparison(operator, a, b) }
    // A bigint and a double compare by value with these, and not with ===.
    const isMixed = type && other && isWide(type) !== isWide(other)
    return {
      text: `${a} ${isMixed ? operator.replace('===', '==').replace('!==', '!=') : operator} ${b}`,
    }
  }
}

function textComparison(operator: string, a: string, b: string): string {
  if (operator === '===' || operator === '!==') return `${a} ${operator} ${b}`
  return `R.compareText(${a}, ${b}) ${operator} 0`
}

/** NaN equals itself and is above everything. */
function floatComparison(operator: string, a: string, b: string): string {
  const equal = `(${a} === ${b} || (${a} !== ${a} && ${b} !== ${b}))`
  switch (operator) {
    case '===':
      return equal
    case '!==':
      return `!${equal}`
    case '<':
      return `(${a} < ${b} || (${b} !== ${b} && ${a} === ${a}))`
    case '<=':
      return `(${a} <= ${b} || ${b} !== ${b})`
    case '>':
      return floatComparison('<', b, a)
    default:
      return floatComparison('<=', b, a)
  }
}

function less(type: Type, a: string, b: string): string {
  if (type.name === 'Utf8') return textComparison('<', a, b)
  return isFloat(type) ? floatComparison('<', a, b) : `${a} < ${b}`
}

function asNumber(emitter: Emitter, type: Type, code: string): string {
  return emitter.isBig(type) ? `Number(${code})` : code
}

function rounding(method: string): Simple {
  return (_, node, [a = '']) => ({ text: isFloat(node.type) ? `Math.${method}(${a})` : a })
}

function textTest(method: string): Simple {
  return (_, __, [a = '', b = '']) => ({ text: `${a}.${method}(${b})` })
}

/** The number that a length or a position is, as the kernel has Int64. */
function counted(code: string): Simple {
  return (emitter, _, [a = '', b = '']) => {
    const text = code.replace('A', a).replace('B', b)
    return { text: emitter.isWide ? `BigInt(${text})` : text }
  }
}

/** An Int64 operand of a text function, as a double. */
function count(emitter: Emitter, code: string): string {
  return emitter.isWide ? `Number(${code})` : code
}

function padding(isLeft: boolean): Simple {
  return (emitter, _, [a = '', width = '', fill = "' '"]) => ({
    text: `R.pad(${a}, ${count(emitter, width)}, ${fill}, ${isLeft})`,
  })
}

const SIMPLE: Record<string, Simple> = {
  add: whole('+'),
  sub: whole('-'),
  mul: whole('*'),
  div: (_, __, [a = '', b = '']) => ({ text: `${a} / ${b}` }),
  idiv: (emitter, node, [a = '', b = '']) =>
    emitter.isWide
      ? {
          text: `(${b} === 0n ? null : R.${node.type.name === 'UInt64' ? 'uint64' : 'int64'}(${a} / ${b}))`,
          mayBeNull: true,
          initial: '0n',
        }
      : { text: `(${b} === 0 ? null : Math.trunc(${a} / ${b}) + 0)`, mayBeNull: true },
  mod: (emitter, node, [a = '', b = '']) => {
    if (isFloat(node.type)) return { text: `${a} % ${b}` }
    return emitter.isWide
      ? { text: `(${b} === 0n ? null : ${a} % ${b})`, mayBeNull: true, initial: '0n' }
      : { text: `(${b} === 0 ? null : ${a} % ${b} + 0)`, mayBeNull: true }
  },
  neg: (emitter, node, [a = '']) => {
    if (isFloat(node.type)) return { text: `-${a}` }
    return emitter.isWide
      ? { text: `R.int64(-${a})`, mayThrow: true, initial: '0n' }
      : { text: `0 - ${a}` }
  },
  abs: (emitter, node, [a = '']) => {
    if (isFloat(node.type)) return { text: `Math.abs(${a})` }
    return emitter.isWide
      ? {
          text: `R.int64(${a} < 0n ? -${a} : ${a})`,
          mayThrow: node.type.name !== 'UInt64',
          initial: '0n',
        }
      : { text: `Math.abs(${a})` }
  },
  round: (_, node, [a = '']) => {
    if (!isFloat(node.type)) return { text: a }
    const digits = Number(node.args[1]?.value ?? 0)
    return { text: `R.roundFloat(${a}, ${10 ** Math.abs(digits)}, ${digits >= 0})` }
  },
  floor: rounding('floor'),
  ceil: rounding('ceil'),
  trunc: rounding('trunc'),
  sign: (emitter, node, [a = '']) => ({
    text:
      emitter.isWide && !isFloat(node.type)
        ? `(${a} > 0 ? 1n : ${a} < 0 ? -1n : 0n)`
        : `Math.sign(${a}) + 0`,
  }),
  pi: () => ({ text: 'Math.PI' }),
  sqrt: (_, __, [a = '']) => ({ text: `Math.sqrt(${a})` }),
  eq: comparison('==='),
  ne: comparison('!=='),
  lt: comparison('<'),
  le: comparison('<='),
  gt: comparison('>'),
  ge: comparison('>='),
  not: (_, __, [a = '']) => ({ text: `!${a}` }),
  is_nan: (_, __, [a = '']) => ({ text: `${a} !== ${a}` }),
  concat: (_, __, args) => ({ text: args.join(' + ') }),
  length: counted('R.length(A)'),
  strpos: counted('R.strpos(A, B)'),
  contains: textTest('includes'),
  starts_with: textTest('startsWith'),
  ends_with: textTest('endsWith'),
  like: (emitter, node, [a = '']) => ({
    text: `${emitter.constant(likeTest(String(node.args[1]?.value ?? '')))}(${a})`,
  }),
  ilike: (emitter, node, [a = '']) => ({
    text: `${emitter.constant(likeTest(lower(String(node.args[1]?.value ?? ''))))}(R.lower(${a}))`,
    mayThrow: true,
    initial: 'false',
  }),
  upper: (_, __, [a = '']) => ({ text: `R.upper(${a})`, mayThrow: true, initial: "''" }),
  lower: (_, __, [a = '']) => ({ text: `R.lower(${a})`, mayThrow: true, initial: "''" }),
  replace: (_, __, [a = '', old = '', by = '']) => ({
    text: `(${old} === '' ? ${a} : ${a}.replaceAll(${old}, () => ${by}))`,
  }),
  reverse: (_, __, [a = '']) => ({ text: `R.reverse(${a})` }),
  left: (emitter, _, [a = '', b = '']) => ({ text: `R.left(${a}, ${count(emitter, b)})` }),
  right: (emitter, _, [a = '', b = '']) => ({ text: `R.right(${a}, ${count(emitter, b)})` }),
  substr: (emitter, node, [a = '', start = '', length]) => ({
    text: `R.substr(${a}, ${count(emitter, start)}, ${length === undefined ? 'Infinity' : count(emitter, length)})`,
  }),
  trim: (_, __, [a = '', chars = "' '"]) => ({
    text: `R.trimStart(R.trimEnd(${a}, ${chars}), ${chars})`,
  }),
  ltrim: (_, __, [a = '', chars = "' '"]) => ({ text: `R.trimStart(${a}, ${chars})` }),
  rtrim: (_, __, [a = '', chars = "' '"]) => ({ text: `R.trimEnd(${a}, ${chars})` }),
  repeat: (emitter, _, [a = '', b = '']) => ({
    text: `R.repeat(${a}, ${count(emitter, b)})`,
    mayThrow: true,
    initial: "''",
  }),
  lpad: padding(true),
  rpad: padding(false),
  split_part: (emitter, _, [a = '', b = '', at = '']) => ({
    text: `R.splitPart(${a}, ${b}, ${count(emitter, at)})`,
  }),
  ...DATE_CALLS,
}

// Expressions that decide which of their operands are computed

/** `and` (where `stop` is false) and `or`: the first operand that decides ends it. */
function logic(stop: boolean): Special {
  return (emitter, node) => {
    const value = emitter.declare(String(!stop))
    const isNull = emitter.declare('false')
    node.args.forEach((arg) => {
      const { value: each, isNull: none } = emitter.emit(arg)
      emitter.line(
        none === NEVER
          ? `if (${stop ? '' : '!'}${each}) { ${value} = ${stop}; ${isNull} = false } else {`
          : `if (!(${none}) && ${stop ? '' : '!'}${each}) { ${value} = ${stop}; ${isNull} = false } else { if (${none}) ${isNull} = true`,
      )
    })
    emitter.line('}'.repeat(node.args.length))
    return { value, isNull }
  }
}

const SPECIAL: Record<string, Special> = {
  and: logic(false),
  or: logic(true),
  is_null: (emitter, node) => {
    const [arg] = node.args
    return { value: arg ? emitter.emit(arg).isNull : NEVER, isNull: NEVER }
  },
  between: (emitter, node) => {
    const [value, low, high] = node.args
    if (!value || !low || !high) throw new Error('between takes three operands')
    const test = (op: string, args: Typed[]): Typed => ({ ...node, op, args })
    return emitter.emit(test('and', [test('ge', [value, low]), test('le', [value, high])]))
  },
  is_in: (emitter, node) => {
    const [value, ...others] = node.args
    if (!value) throw new Error('is_in takes an operand')
    const tests = others.map((other): Typed => ({ ...node, op: 'eq', args: [value, other] }))
    if (tests.length === 0) return { value: 'false', isNull: NEVER }
    return emitter.emit({ ...node, op: 'or', args: tests })
  },
  coalesce: (emitter, node) => {
    const value = emitter.declare(emptyOf(node.type, emitter))
    const isNull = emitter.declare('true')
    for (const arg of node.args) {
      const { value: each, isNull: none } = emitter.emit(arg)
      emitter.line(`if (!(${none})) { ${value} = ${each}; ${isNull} = false } else {`)
    }
    emitter.line('}'.repeat(node.args.length))
    return { value, isNull }
  },
  case: (emitter, node) => {
    const value = emitter.declare(emptyOf(node.type, emitter))
    const isNull = emitter.declare('true')
    const otherwise = node.args[node.args.length - 1]
    const branches = (node.args.length - 1) / 2
    for (let at = 0; at < branches; at += 1) {
      const [test, then] = [node.args[2 * at], node.args[2 * at + 1]]
      if (!test || !then) continue
      const { value: holds, isNull: none } = emitter.emit(test)
      emitter.line(`if (!(${none}) && ${holds}) {`)
      assign(emitter, then, value, isNull)
      emitter.line('} else {')
    }
    if (otherwise) assign(emitter, otherwise, value, isNull)
    emitter.line('}'.repeat(branches))
    return { value, isNull }
  },
  greatest: extreme,
  least: extreme,
  nullif: (emitter, node) => {
    const [one, two] = node.args
    if (!one || !two) throw new Error('nullif takes two operands')
    const value = emitter.emit(one)
    const equal = emitter.emit({ ...node, op: 'eq', args: [one, two] })
    const isNull = emitter.variable(`${value.isNull} || (!(${equal.isNull}) && ${equal.value})`)
    return { value: value.value, isNull }
  },
  cast: (emitter, node) => {
    const [arg] = node.args
    if (!arg) throw new Error('a cast has an operand')
    const from = emitter.emit(arg)
    const text = castCode(emitter, arg.type, node.type, from.value)
    const big = emitter.isBig(node.type)
    const initial = emptyOf(node.type, emitter)
    if (text.exact) return emitter.strict([from], { text: text.code })
    const made = emitter.declare('null')
    const refused = node.strict
      ? `R.refuseCast(${from.value}, ${emitter.constant(node.type)})`
      : 'null'
    const stored = big
      ? `BigInt(${made})`
      : isWide(node.type)
        ? `typeof ${made} === 'bigint' ? W() : ${made}`
        : made
    return emitter.strict([from], {
      text: `((${made} = ${text.code}) === null ? ${refused} : ${stored})`,
      mayBeNull: true,
      initial,
    })
  },
}

function assign(emitter: Emitter, node: Typed, value: string, isNull: string): void {
  const made = emitter.emit(node)
  if (made.isNull === 'true') return
  const set = `${value} = ${made.value}; ${isNull} = false`
  emitter.line(made.isNull === NEVER ? set : `if (!(${made.isNull})) { ${set} }`)
}

function extreme(emitter: Emitter, node: Typed): Emitted {
  const value = emitter.declare(emptyOf(node.type, emitter))
  const isNull = emitter.declare('true')
  for (const arg of node.args) {
    const { value: each, isNull: none } = emitter.emit(arg)
    const [a, b] = node.op === 'least' ? [each, value] : [value, each]
    emitter.line(
      `if (!(${none}) && (${isNull} || ${less(node.type, a, b)})) { ${value} = ${each}; ${isNull} = false }`,
    )
  }
  return { value, isNull }
}

/** The code of a conversion; `exact` if every value fits, else it is null where one does not. */
function castCode(
  emitter: Emitter,
  from: Type,
  to: Type,
  code: string,
): { code: string; exact: boolean } {
  const target = (): string => emitter.constant(to)
  if (from.name === 'Utf8') return { code: `R.readCast(${code}, ${target()})`, exact: false }
  if (to.name === 'Utf8')
    return { code: `R.castText(${code}, ${emitter.constant(from)})`, exact: true }
  if (to.name === 'Bool') return { code: `R.castToBool(${code})`, exact: false }
  if (from.name === 'Bool') {
    const one = emitter.isBig(to)
    return { code: `(${code} ? ${one ? '1n' : '1'} : ${one ? '0n' : '0'})`, exact: true }
  }
  if (to.name === 'Float32')
    return { code: `R.castToFloat32(${asNumber(emitter, from, code)})`, exact: false }
  if (isFloat(to)) return { code: asNumber(emitter, from, code), exact: true }
  if (isFloat(from)) return { code: `R.castFloatToInteger(${code}, ${target()})`, exact: false }
  if (isInteger(from) && isInteger(to)) return integerCast(emitter, from, to, code)
  return timeCast(emitter, from, to, code)
}

function integerCast(
  emitter: Emitter,
  from: Type,
  to: Type,
  code: string,
): { code: string; exact: boolean } {
  const plain = emitter.isBig(from) && !emitter.isBig(to) ? `Number(${code})` : code
  return { code: `(R.fits(${code}, ${emitter.constant(to)}) ? ${plain} : null)`, exact: false }
}

function timeCast(
  emitter: Emitter,
  from: Type,
  to: Type,
  code: string,
): { code: string; exact: boolean } {
  if (to.name === 'Date')
    return { code: `R.floorDiv(${code}, ${86_400 * TICKS[from.unit ?? 'us']})`, exact: true }
  if (from.name === 'Date') {
    const seconds = emitter.constant({ name: 'Timestamp', unit: 's' })
    return {
      code: `R.rescaled(${code} * 86400, ${seconds}, ${emitter.constant(to)})`,
      exact: false,
    }
  }
  return {
    code: `R.rescaled(${code}, ${emitter.constant(from)}, ${emitter.constant(to)})`,
    exact: false,
  }
}
