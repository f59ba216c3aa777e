/** What the syntax of a function means as expressions: SQL's operators in JavaScript's spelling. */

import { Unsupported, UsageError } from '../errors.ts'
import { call, Expr, exprOf, lit, when, type Operand } from '../plan/expr.ts'
import type { Constant } from '../plan/values.ts'
import { Accumulator, Comparison } from './fold.ts'
import type { Syntax } from './syntax.ts'

/** The row that a function receives: its members are columns. */
export class Row {
  column(name: string): Expr {
    return new Expr({ col: name })
  }
}

/** What a part of a function can be while it is translated. */
export type Meaning = unknown

/** The value of each name: parameters, constants of the function, and what the caller passed. */
export type Names = ReadonlyMap<string, Meaning>

const HINT = 'use the methods of expressions, such as r.name.lower(), or col(…)'

const OPERATORS: Record<string, string> = {
  '-': 'sub',
  '*': 'mul',
  '/': 'div',
  '%': 'mod',
  '**': 'power',
  '<': 'lt',
  '<=': 'le',
  '>': 'gt',
  '>=': 'ge',
  '===': 'eq',
  '==': 'eq',
  '!==': 'ne',
  '!=': 'ne',
  '&&': 'and',
  '||': 'or',
  '??': 'coalesce',
}

/** Methods of JavaScript's strings that an expression has by another name. */
const METHODS: Record<string, string> = {
  toUpperCase: 'upper',
  toLowerCase: 'lower',
  includes: 'contains',
  replaceAll: 'replace',
}

const MATH: Record<string, string> = {
  abs: 'abs',
  floor: 'floor',
  ceil: 'ceil',
  trunc: 'trunc',
  sign: 'sign',
  sqrt: 'sqrt',
  exp: 'exp',
  log: 'ln',
  log10: 'log10',
  log2: 'log2',
  sin: 'sin',
  cos: 'cos',
  tan: 'tan',
  asin: 'asin',
  acos: 'acos',
  atan: 'atan',
  atan2: 'atan2',
  pow: 'power',
  max: 'greatest',
  min: 'least',
}

/**
 * The meaning of a syntax tree: an expression, a constant, or for an array or an object its items.
 *
 * @throws Unsupported if a part has none.
 */
export function meaningOf(node: Syntax, names: Names): Meaning {
  switch (node.kind) {
    case 'constant':
      return node.value
    case 'name':
      return names.get(node.name)
    case 'template':
      return joined(
        node.texts,
        node.parts.map((part) => meaningOf(part, names)),
      )
    case 'member':
      return member(meaningOf(node.object, names), node.name, node)
    case 'call':
      return called(node.callee, node.args, names)
    case 'unary':
      return unary(node.mark, meaningOf(node.operand, names))
    case 'binary':
      return binary(node.mark, meaningOf(node.left, names), meaningOf(node.right, names))
    case 'choice':
      return choice(
        meaningOf(node.test, names),
        meaningOf(node.yes, names),
        meaningOf(node.no, names),
      )
    case 'object':
      return Object.fromEntries(
        node.entries.map(([name, value]) => [name, meaningOf(value, names)]),
      )
    case 'array':
      return node.items.map((item) => meaningOf(item, names))
  }
}

/** The value as an operand of an expression. */
export function operand(value: Meaning): Operand {
  if (value === undefined) return null
  if (value instanceof Expr || value === null) return value as Operand
  if (value instanceof Date || value instanceof Uint8Array) return value
  if (['number', 'bigint', 'string', 'boolean'].includes(typeof value)) return value as Constant
  if (value instanceof Accumulator || value instanceof Comparison) return value.refuse()
  const what = value instanceof Row ? 'a whole row' : Array.isArray(value) ? 'a list' : 'an object'
  throw new Unsupported(`${what} cannot be an operand of an expression`, HINT)
}

function isConstant(value: Meaning): boolean {
  return !(value instanceof Object) && value !== undefined
}

function member(object: Meaning, name: string, node: Syntax): Meaning {
  if (object instanceof Row) return object.column(name)
  if (object instanceof Expr && name === 'length') return object.length()
  if (Array.isArray(object) && /^\d+$/.test(name)) return object[Number(name)]
  if (isMath(node) && name === 'PI') return Math.PI
  throw new Unsupported(`.${name} is not a column or a property of an expression`, HINT)
}

function isMath(node: Syntax): boolean {
  return node.kind === 'member' && node.object.kind === 'name' && node.object.name === 'Math'
}

function called(callee: Syntax, args: Syntax[], names: Names): Meaning {
  const values = args.map((arg) => meaningOf(arg, names))
  if (callee.kind !== 'member') throw new Unsupported('a function calls another function', HINT)
  if (isMath(callee)) return mathCall(callee.name, values)
  const object = meaningOf(callee.object, names)
  if (Array.isArray(object) && callee.name === 'includes' && values[0] instanceof Expr)
    return values[0].isIn(object.map(operand))
  if (!(object instanceof Expr)) throw new Unsupported(`.${callee.name}() of a constant`, HINT)
  return methodCall(object, METHODS[callee.name] ?? callee.name, values)
}

function methodCall(object: Expr, name: string, values: Meaning[]): Meaning {
  const isMethod = name !== 'constructor' && Object.hasOwn(Expr.prototype, name)
  const method: unknown = isMethod ? object[name as keyof Expr] : undefined
  if (typeof method !== 'function') throw new Unsupported(`expressions have no .${name}()`, HINT)
  const args = values.map((value) => (Array.isArray(value) ? value.map(operand) : value))
  return Reflect.apply(method, object, args)
}

function mathCall(name: string, values: Meaning[]): Meaning {
  if (name === 'round')
    throw new Unsupported('Math.round rounds -2.5 up', 'use .round(), which rounds it to -3')
  const fn = MATH[name]
  if (fn === undefined) throw new Unsupported(`Math.${name} is not a function of expressions`, HINT)
  const folds = values.some((value) => value instanceof Accumulator)
  if (folds && (name === 'max' || name === 'min')) return Accumulator.extreme(name, values)
  if (values.every(isConstant)) {
    const compute = Math[name as 'pow'] as (...numbers: number[]) => number
    return compute(...values.map(Number))
  }
  return call(fn, ...values.map(operand))
}

function unary(mark: string, value: Meaning): Meaning {
  if (value instanceof Expr) {
    if (mark === '!') return value.not()
    if (mark === '-') return value.neg()
    throw new Unsupported('unary + of a column', "use .cast('Float64')")
  }
  if (!isConstant(value)) return operand(value) // refuses it
  if (mark === '!') return !value
  return mark === '-' ? -(value as number) : Number(value)
}

function binary(mark: string, left: Meaning, right: Meaning): Meaning {
  if (left instanceof Accumulator || right instanceof Accumulator)
    return Accumulator.binary(mark, left, right)
  const isColumn = left instanceof Expr || right instanceof Expr
  if (!isColumn && isConstant(left) && isConstant(right)) return compute(mark, left, right)
  if (OPERATORS[mark] === 'eq' || OPERATORS[mark] === 'ne') return equality(mark, left, right)
  const [one, two] = [operand(left), operand(right)]
  if (mark === '+')
    return isText(one) || isText(two) ? call('concat', one, two) : call('add', one, two)
  return call(OPERATORS[mark] ?? mark, one, two)
}

function equality(mark: string, left: Meaning, right: Meaning): Expr {
  const [one, two] = [exprOf(operand(left)), exprOf(operand(right))]
  const isEqual = OPERATORS[mark] === 'eq'
  // `x === null` asks whether there is a value; SQL's comparison with NULL is never true.
  for (const [value, other] of [
    [left, two],
    [right, one],
  ] as const)
    if (value === null || value === undefined) return isEqual ? other.isNull() : other.isNotNull()
  return isEqual ? one.eq(two) : one.ne(two)
}

function isText(value: Operand): boolean {
  if (typeof value === 'string') return true
  return value instanceof Expr && 'fn' in value.json && value.json.fn === 'concat'
}

function choice(test: Meaning, yes: Meaning, no: Meaning): Meaning {
  if (test instanceof Comparison) return test.choose(yes, no)
  if (!(test instanceof Expr)) return test ? yes : no
  return when(test).then(operand(yes)).otherwise(operand(no))
}

function joined(texts: string[], parts: Meaning[]): Meaning {
  if (parts.every(isConstant))
    return texts.map((text, at) => text + (at < parts.length ? String(parts[at]) : '')).join('')
  const pieces: Operand[] = []
  texts.forEach((text, at) => {
    if (text !== '') pieces.push(text)
    if (at < parts.length) pieces.push(asText(parts[at]))
  })
  return pieces.length > 1 ? call('concat', ...pieces) : pieces[0]
}

function asText(value: Meaning): Operand {
  return value instanceof Expr ? value.cast('Utf8') : lit(String(operand(value)))
}

function compute(mark: string, left: Meaning, right: Meaning): Meaning {
  const [a, b] = [left as number, right as number]
  switch (mark) {
    case '+':
      return a + b
    case '-':
      return a - b
    case '*':
      return a * b
    case '/':
      return a / b
    case '%':
      return a % b
    case '**':
      return a ** b
    case '<':
      return a < b
    case '<=':
      return a <= b
    case '>':
      return a > b
    case '>=':
      return a >= b
    case '==':
    case '===':
      return a === b
    case '!=':
    case '!==':
      return a !== b
    case '&&':
      return a && b
    case '||':
      return a || b
    case '??':
      return a ?? b
  }
  throw new UsageError(`no operator ${mark}`)
}
