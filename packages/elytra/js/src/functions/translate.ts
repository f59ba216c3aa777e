/**
 * Functions of a row as expressions.
 *
 * A function with JavaScript's operators is translated from its source text: `(r) => r.price * r.qty`
 * never runs. It can name its parameters, `Math`, and what the caller passes as `scope`. A function
 * that uses the methods of expressions alone, `(r) => r.price.gt(limit)`, is called once with a
 * placeholder row, so that it can name any variable.
 */

import { Unsupported } from '../errors.ts'
import { Expr } from '../plan/expr.ts'
import type { Constant } from '../plan/values.ts'
import { meaningOf, Row, type Meaning } from './meaning.ts'
import { parseFunction, walk, type FunctionSyntax, type Parameter, type Syntax } from './syntax.ts'

/** Values of variables that a function names, which its source text does not have. */
export type Scope = Readonly<Record<string, Constant | readonly Constant[] | Expr>>

type AnyFunction = (...args: never[]) => unknown

/** Operators look at a placeholder and not at the values of a column. */
const OPERATORS = new Set<Syntax['kind']>(['unary', 'binary', 'choice', 'template'])

/**
 * What a function returns for placeholders.
 *
 * @param placeholders one for each parameter.
 * @throws Unsupported if it cannot be translated; the message names what was found.
 */
export function translate(
  fn: AnyFunction,
  placeholders: readonly Meaning[],
  scope: Scope = {},
): Meaning {
  const syntax = parseFunction(Function.prototype.toString.call(fn))
  const names = namesOf(syntax.parameters, placeholders, scope)
  const outside = firstOutside(syntax, names)
  if (outside === null) {
    for (const [name, value] of syntax.constants) names.set(name, meaningOf(value, names))
    return meaningOf(syntax.result, names)
  }
  if (!usesOperators(syntax)) return callTwice(fn, placeholders)
  throw new Unsupported(
    `${outside} is a variable outside of the function, which is translated from its text`,
    `pass it, { ${outside} }, as the next argument, or use methods: r.price.gt(${outside})`,
  )
}

function namesOf(
  parameters: readonly Parameter[],
  placeholders: readonly Meaning[],
  scope: Scope,
): Map<string, Meaning> {
  const names = new Map<string, Meaning>(Object.entries(scope))
  parameters.forEach((parameter, at) => {
    const value = placeholders[at]
    if (parameter.name !== null) names.set(parameter.name, value)
    else if (value instanceof Row)
      for (const [column, name] of parameter.columns) names.set(name, value.column(column))
    else throw new Unsupported('a parameter that is one value cannot be taken apart')
  })
  return names
}

/** The first name that is neither a parameter nor a constant of the function, nor `Math`. */
function firstOutside(syntax: FunctionSyntax, names: ReadonlyMap<string, Meaning>): string | null {
  const known = new Set([...names.keys(), ...syntax.constants.map(([name]) => name), 'Math'])
  for (const tree of treesOf(syntax))
    for (const node of walk(tree))
      if (node.kind === 'name' && !known.has(node.name)) return node.name
  return null
}

/** Whether an operator may be applied to a placeholder. */
function usesOperators(syntax: FunctionSyntax): boolean {
  const own = new Set(syntax.parameters.flatMap(boundNames))
  const touches = (tree: Syntax): boolean =>
    [...walk(tree)].some((node) => node.kind === 'name' && own.has(node.name))
  for (const [name, value] of syntax.constants) if (touches(value)) own.add(name)
  return treesOf(syntax).some((tree) =>
    [...walk(tree)].some((node) => OPERATORS.has(node.kind) && touches(node)),
  )
}

function boundNames(parameter: Parameter): string[] {
  return parameter.name !== null ? [parameter.name] : parameter.columns.map(([, name]) => name)
}

function treesOf(syntax: FunctionSyntax): Syntax[] {
  return [...syntax.constants.map(([, value]) => value), syntax.result]
}

/** Call a function twice: what changes between calls would become a constant. */
function callTwice(fn: AnyFunction, placeholders: readonly Meaning[]): Meaning {
  const run = (): unknown => Reflect.apply(fn, undefined, placeholders.map(callable))
  const [first, second] = [run(), run()]
  if (JSON.stringify(describe(first)) !== JSON.stringify(describe(second)))
    throw new Unsupported(
      'this function builds another expression at each call',
      'it runs once, not once per row: random numbers and clocks cannot be translated',
    )
  return first
}

function callable(placeholder: Meaning): unknown {
  if (!(placeholder instanceof Row)) return placeholder
  return new Proxy({}, { get: (_, name) => placeholder.column(String(name)) })
}

function describe(value: unknown): unknown {
  if (value instanceof Expr) return value.json
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value !== 'object' || value === null) return value ?? null
  return Object.entries(value).map(([name, each]) => [name, describe(each)])
}
