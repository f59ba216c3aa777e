/** Tokens of the source text of a JavaScript function. */

import { Unsupported } from '../errors.ts'

export type Token =
  | { kind: 'number'; value: number | bigint; at: number }
  | { kind: 'string'; value: string; at: number }
  | { kind: 'template'; texts: string[]; sources: string[]; at: number }
  | { kind: 'name'; value: string; at: number }
  | { kind: 'mark'; value: string; at: number }
  | { kind: 'end'; value: ''; at: number }

const SPACE = /(?:\s|\/\/[^\n]*|\/\*[\s\S]*?\*\/)+/y
const NUMBER =
  /0[xX][\da-fA-F_]+n?|0[oO][0-7_]+n?|0[bB][01_]+n?|(?:\d[\d_]*)?\.?\d[\d_]*\.?(?:[eE][+-]?\d+)?n?/y
const NAME = /[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*/uy
// Longest first, so that `===` is not read as `==` and `=`.
const MARKS =
  /=>|\.\.\.|===|!==|\*\*|&&|\|\||\?\?|\?\.|<=|>=|==|!=|\+\+|--|<<|>>>|>>|[-+*/%<>=!?:;,.(){}[\]&|^~]/y
const ESCAPES: Record<string, string> = {
  n: '\n',
  t: '\t',
  r: '\r',
  b: '\b',
  f: '\f',
  v: '\v',
  '0': '\0',
}

/**
 * The tokens of a source text, the last of kind `end`.
 *
 * @throws Unsupported at a character that no supported token begins with, such as that of a regular
 *   expression.
 */
export function tokens(source: string): Token[] {
  const found: Token[] = []
  let at = match(SPACE, source, 0)?.length ?? 0
  while (at < source.length) {
    const [token, end] = next(source, at)
    found.push(token)
    at = end + (match(SPACE, source, end)?.length ?? 0)
  }
  found.push({ kind: 'end', value: '', at: source.length })
  return found
}

function next(source: string, at: number): [Token, number] {
  const first = source[at] ?? ''
  if (first === '"' || first === "'") return text(source, at, first)
  if (first === '`') return template(source, at)
  // Before marks: `.5` is a number.
  const number = /[\d.]/.test(first) && match(NUMBER, source, at)
  if (number) return [{ kind: 'number', value: numberOf(number), at }, at + number.length]
  const name = match(NAME, source, at)
  if (name) return [{ kind: 'name', value: name, at }, at + name.length]
  const mark = match(MARKS, source, at)
  if (mark) return [{ kind: 'mark', value: mark, at }, at + mark.length]
  throw new Unsupported(`${JSON.stringify(first)} in a function cannot be translated`)
}

function match(pattern: RegExp, source: string, at: number): string | null {
  pattern.lastIndex = at
  return pattern.exec(source)?.[0] ?? null
}

function numberOf(written: string): number | bigint {
  const plain = written.replaceAll('_', '')
  return plain.endsWith('n') ? BigInt(plain.slice(0, -1)) : Number(plain)
}

function text(source: string, at: number, quote: string): [Token, number] {
  let value = ''
  let index = at + 1
  while (index < source.length && source[index] !== quote) {
    const [piece, end] = character(source, index)
    value += piece
    index = end
  }
  return [{ kind: 'string', value, at }, index + 1]
}

/** One character of a text, or what an escape stands for. */
function character(source: string, at: number): [string, number] {
  const first = source[at] ?? ''
  if (first !== '\\') return [first, at + 1]
  const escaped = source[at + 1] ?? ''
  const code = /^\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|u\{([\da-fA-F]+)\})/.exec(
    source.slice(at, at + 12),
  )
  if (code) {
    const digits = code[1] ?? code[2] ?? code[3] ?? '0'
    return [String.fromCodePoint(parseInt(digits, 16)), at + code[0].length]
  }
  if (escaped === '\n') return ['', at + 2]
  return [ESCAPES[escaped] ?? escaped, at + 2]
}

/** A template literal: its texts, and the source of each substitution. */
function template(source: string, at: number): [Token, number] {
  const texts = ['']
  const sources: string[] = []
  let index = at + 1
  while (index < source.length && source[index] !== '`') {
    if (source.startsWith('${', index)) {
      const end = endOfSubstitution(source, index + 2)
      sources.push(source.slice(index + 2, end))
      texts.push('')
      index = end + 1
      continue
    }
    const [piece, end] = character(source, index)
    texts[texts.length - 1] += piece
    index = end
  }
  return [{ kind: 'template', texts, sources, at }, index + 1]
}

function endOfSubstitution(source: string, at: number): number {
  let index = at
  while (index < source.length && source[index] !== '}') {
    const first = source[index]
    if (first === '"' || first === "'" || first === '`') index = next(source, index)[1]
    else if (first === '{') index = endOfSubstitution(source, index + 1) + 1
    else index += 1
  }
  return index
}
