/** The syntax tree of a JavaScript function that consists of one expression. */

import { Unsupported } from '../errors.ts'
import { tokens, type Token } from './tokens.ts'

export type Syntax =
  | { kind: 'constant'; value: number | bigint | string | boolean | null | undefined }
  | { kind: 'template'; texts: string[]; parts: Syntax[] }
  | { kind: 'name'; name: string }
  | { kind: 'member'; object: Syntax; name: string }
  | { kind: 'call'; callee: Syntax; args: Syntax[] }
  | { kind: 'unary'; mark: string; operand: Syntax }
  | { kind: 'binary'; mark: string; left: Syntax; right: Syntax }
  | { kind: 'choice'; test: Syntax; yes: Syntax; no: Syntax }
  | { kind: 'object'; entries: [string, Syntax][] }
  | { kind: 'array'; items: Syntax[] }

/** A parameter: a name, or the names of the columns that `({ price, qty }) => …` takes apart. */
export type Parameter =
  { name: string; columns: null } | { name: null; columns: [column: string, name: string][] }

export interface FunctionSyntax {
  parameters: Parameter[]
  /** Names that `const` binds before the result is computed, in order. */
  constants: [name: string, value: Syntax][]
  result: Syntax
}

const HINT = "write an expression instead, such as col('price').mul(2)"
const DEPTH_MAX = 100

/** How tightly each operator with two operands binds. */
const BINDING: Record<string, number> = {
  '??': 1,
  '||': 2,
  '&&': 3,
  '==': 4,
  '!=': 4,
  '===': 4,
  '!==': 4,
  '<': 5,
  '<=': 5,
  '>': 5,
  '>=': 5,
  '+': 6,
  '-': 6,
  '*': 7,
  '/': 7,
  '%': 7,
  '**': 8,
}

/**
 * Parse the source text of a function.
 *
 * @throws Unsupported if it is more than one expression, after constants at most.
 */
export function parseFunction(source: string): FunctionSyntax {
  return new Parser(source).whole()
}

class Parser {
  private readonly tokens: Token[]
  private at = 0
  private depth = 0

  constructor(private readonly source: string) {
    this.tokens = tokens(source)
  }

  whole(): FunctionSyntax {
    if (this.takeName('async')) this.fail('an async function')
    if (this.takeName('function')) {
      if (this.peek().kind === 'name') this.at += 1
      const parameters = this.parameters()
      return this.body(parameters, true)
    }
    const first = this.peek()
    if (first.kind !== 'name') {
      const parameters = this.parameters()
      this.expect('=>')
      return this.body(parameters, false)
    }
    this.at += 1
    this.expect('=>')
    return this.body([{ name: first.value, columns: null }], false)
  }

  expression(): Syntax {
    this.depth += 1
    if (this.depth > DEPTH_MAX) this.fail(`an expression nested deeper than ${DEPTH_MAX} levels`)
    const test = this.binary(0)
    const whole = this.take('?') ? this.choice(test) : test
    this.depth -= 1
    return whole
  }

  end(): void {
    if (this.peek().kind !== 'end') this.fail(this.shown())
  }

  private choice(test: Syntax): Syntax {
    const yes = this.expression()
    this.expect(':')
    return { kind: 'choice', test, yes, no: this.expression() }
  }

  private body(parameters: Parameter[], isBlock: boolean): FunctionSyntax {
    const constants: [string, Syntax][] = []
    if (!isBlock && this.peek().value !== '{') {
      const result = this.expression()
      this.end()
      return { parameters, constants, result }
    }
    this.expect('{')
    while (this.takeName('const')) {
      const name = this.name('the name of a constant')
      this.expect('=')
      constants.push([name, this.expression()])
      this.take(';')
    }
    if (!this.takeName('return')) this.fail(`${this.shown()} in a block`)
    const result = this.expression()
    this.take(';')
    this.expect('}')
    this.end()
    return { parameters, constants, result }
  }

  private parameters(): Parameter[] {
    this.expect('(')
    const found: Parameter[] = []
    while (!this.take(')')) {
      found.push(this.peek().value === '{' ? this.takenApart() : this.plainParameter())
      if (this.peek().value !== ')') this.expect(',')
    }
    return found
  }

  private plainParameter(): Parameter {
    return { name: this.name('a parameter'), columns: null }
  }

  private takenApart(): Parameter {
    this.expect('{')
    const columns: [string, string][] = []
    while (!this.take('}')) {
      const column = this.key()
      columns.push([column, this.take(':') ? this.name('a parameter') : column])
      if (this.peek().value !== '}') this.expect(',')
    }
    return { name: null, columns }
  }

  private binary(least: number): Syntax {
    let left = this.unary()
    for (;;) {
      const token = this.peek()
      const binding = token.kind === 'mark' ? BINDING[token.value] : undefined
      if (binding === undefined || binding < least) return left
      this.at += 1
      // `**` is the only one that groups to the right.
      const right = this.binary(token.value === '**' ? binding : binding + 1)
      left = { kind: 'binary', mark: String(token.value), left, right }
    }
  }

  private unary(): Syntax {
    const token = this.peek()
    if (token.kind === 'mark' && ['!', '-', '+'].includes(token.value)) {
      this.at += 1
      return { kind: 'unary', mark: token.value, operand: this.unary() }
    }
    if (token.kind === 'name' && ['typeof', 'await', 'new', 'void', 'delete'].includes(token.value))
      this.fail(`\`${token.value}\``)
    return this.postfix(this.primary())
  }

  private postfix(start: Syntax): Syntax {
    let found = start
    for (;;) {
      if (this.take('.') || this.take('?.')) {
        found = { kind: 'member', object: found, name: this.key() }
      } else if (this.take('[')) {
        const token = this.peek()
        if (token.kind !== 'string' && token.kind !== 'number') this.fail(`[${this.shown()}]`)
        this.at += 1
        this.expect(']')
        found = { kind: 'member', object: found, name: String(token.value) }
      } else if (this.take('(')) {
        found = { kind: 'call', callee: found, args: this.items(')') }
      } else {
        return found
      }
    }
  }

  private primary(): Syntax {
    const token = this.peek()
    this.at += 1
    switch (token.kind) {
      case 'number':
      case 'string':
        return { kind: 'constant', value: token.value }
      case 'template':
        return { kind: 'template', texts: token.texts, parts: token.sources.map(parsePart) }
      case 'name':
        return named(token.value)
      case 'mark':
        if (token.value === '(') return this.closed(this.expression(), ')')
        if (token.value === '[') return { kind: 'array', items: this.items(']') }
        if (token.value === '{') return { kind: 'object', entries: this.entries() }
    }
    this.at -= 1
    return this.fail(this.shown())
  }

  private items(close: string): Syntax[] {
    const found: Syntax[] = []
    while (!this.take(close)) {
      found.push(this.expression())
      if (this.peek().value !== close) this.expect(',')
    }
    return found
  }

  private entries(): [string, Syntax][] {
    const found: [string, Syntax][] = []
    while (!this.take('}')) {
      const key = this.key()
      found.push([key, this.take(':') ? this.expression() : named(key)])
      if (this.peek().value !== '}') this.expect(',')
    }
    return found
  }

  private closed(inner: Syntax, close: string): Syntax {
    this.expect(close)
    return inner
  }

  private key(): string {
    const token = this.peek()
    if (token.kind !== 'name' && token.kind !== 'string' && token.kind !== 'number')
      this.fail(this.shown())
    this.at += 1
    return String(token.value)
  }

  private name(what: string): string {
    const token = this.peek()
    if (token.kind !== 'name') this.fail(`${this.shown()} in place of ${what}`)
    this.at += 1
    return token.value
  }

  private peek(): Token & { value?: unknown } {
    return this.tokens[this.at] as Token & { value?: unknown }
  }

  private take(mark: string): boolean {
    const token = this.peek()
    const found = token.kind === 'mark' && token.value === mark
    if (found) this.at += 1
    return found
  }

  private takeName(name: string): boolean {
    const token = this.peek()
    const found = token.kind === 'name' && token.value === name
    if (found) this.at += 1
    return found
  }

  private expect(mark: string): void {
    if (!this.take(mark)) this.fail(`${this.shown()} where ${JSON.stringify(mark)} is expected`)
  }

  private shown(): string {
    const token = this.peek()
    return token.kind === 'end'
      ? 'the end'
      : JSON.stringify(this.source.slice(token.at, token.at + 20))
  }

  private fail(what: string): never {
    throw new Unsupported(`a function with ${what} cannot be translated to an expression`, HINT)
  }
}

function parsePart(source: string): Syntax {
  const parser = new Parser(source)
  const found = parser.expression()
  parser.end()
  return found
}

function named(name: string): Syntax {
  const constants: Record<string, boolean | number | null | undefined> = {
    true: true,
    false: false,
    null: null,
    undefined: undefined,
    NaN: NaN,
    Infinity: Infinity,
  }
  return Object.hasOwn(constants, name)
    ? { kind: 'constant', value: constants[name] }
    : { kind: 'name', name }
}

/** Every node of a tree, the root first. */
export function* walk(root: Syntax): Generator<Syntax> {
  yield root
  for (const child of childrenOf(root)) yield* walk(child)
}

function childrenOf(node: Syntax): Syntax[] {
  switch (node.kind) {
    case 'constant':
    case 'name':
      return []
    case 'template':
      return node.parts
    case 'member':
      return [node.object]
    case 'call':
      return [node.callee, ...node.args]
    case 'unary':
      return [node.operand]
    case 'binary':
      return [node.left, node.right]
    case 'choice':
      return [node.test, node.yes, node.no]
    case 'object':
      return node.entries.map(([, value]) => value)
    case 'array':
      return node.items
  }
}
