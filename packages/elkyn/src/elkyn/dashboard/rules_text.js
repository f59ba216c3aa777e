// @ts-check
/** Text of rules: JSON with comments and expressions in strings. Tokens, formatting, offsets. */

/** @typedef {'space' | 'comment' | 'mark' | 'key' | 'rule' | 'variable' | 'text' | 'quote' | 'word' | 'number' | 'name' | 'method' | 'operator' | 'regex' | 'wrong'} Kind */
/** @typedef {{kind: Kind, text: string}} Token */

/** One document token at a time; other text is one wrong character. An unterminated string or
 * comment extends to the end. Sticky, so that each match begins where the last one ended. */
const DOCUMENT =
  /(?<space>[ \t\r\n\ufeff]+)|(?<comment>\/\/[^\n]*|\/\*(?:[^*]|\*(?!\/))*(?:\*\/)?)|(?<string>"(?:[^"\\]|\\[^])*(?:"|\\?$))|(?<mark>[{}[\],:])|(?<number>-?\d[\w.+-]*)|(?<word>[A-Za-z]+)|(?<wrong>[^])/y

/** Likewise inside an expression, which is part of a JSON string: quotes are `'` or `\"`. */
const EXPRESSION =
  /(?<space>[ \t\r\n]+)|(?<text>'(?:[^'\\]|\\[^])*'?|\\"(?:[^"\\]|\\(?!")[^])*(?:\\")?)|(?<regex>(?<=[(,=!&|?:][ \t\r\n]*)\/(?:[^/\\]|\\\\[^]|\\[^])*\/[a-z]*)|(?<number>\d[\w.]*)|(?<variable>\$[\w-]*)|(?<method>\.[ \t\r\n]*[A-Za-z_]\w*)|(?<word>[A-Za-z_]\w*)|(?<operator>[=!<>]=?=?|&&|\|\||[+\-*/%?:])|(?<mark>[^])/y

const RULES = new Set(['".read"', '".write"', '".validate"'])
const NAMES = new Set(['auth', 'data', 'newData', 'root', 'now', 'query'])
const LITERALS = new Set(['true', 'false', 'null'])
const INLINE_CHARACTERS = 80
const INDENT = '  '

/** @typedef {{name: string, text: string}} Part */

/** @param {RegExp} pattern @param {string} source @returns {Part[]} */
function scan(pattern, source) {
  const found = []
  pattern.lastIndex = 0
  for (let match = pattern.exec(source); match; match = pattern.exec(source)) {
    const [name = ''] =
      Object.entries(match.groups ?? {}).find(([, text]) => text !== undefined) ?? []
    found.push({ name, text: match[0] })
    if (pattern.lastIndex >= source.length) break
  }
  return found
}

/** Split rules into tokens, which always add up to the source, even for invalid rules.
 * @param {string} source @returns {Token[]} */
export function tokens(source) {
  const parts = scan(DOCUMENT, source)
  /** @type {Token[]} */
  const found = []
  let key = ''
  parts.forEach(({ name, text }, index) => {
    if (name !== 'string') {
      const isLiteral = name !== 'word' || LITERALS.has(text)
      found.push({ kind: isLiteral ? /** @type {Kind} */ (name) : 'wrong', text })
    } else if (isKey(parts, index)) {
      key = text
      const kind = text.startsWith('".') ? 'rule' : text.startsWith('"$') ? 'variable' : 'key'
      found.push({ kind, text })
    } else if (RULES.has(key)) {
      found.push(...expression(text))
    } else {
      found.push({ kind: 'text', text })
    }
  })
  return found
}

/** @param {Part[]} parts @param {number} index */
function isKey(parts, index) {
  let next = index + 1
  while (parts[next]?.name === 'space' || parts[next]?.name === 'comment') next += 1
  return parts[next]?.text === ':'
}

/** @param {string} string with its quotes @returns {Token[]} */
function expression(string) {
  const isClosed = string.length > 1 && string.endsWith('"')
  const inside = string.slice(1, isClosed ? -1 : undefined)
  const found = scan(EXPRESSION, inside).map(({ name, text }) => {
    if (name !== 'word') return { kind: /** @type {Kind} */ (name), text }
    const kind = NAMES.has(text) ? 'name' : LITERALS.has(text) ? 'word' : 'mark'
    return { kind: /** @type {Kind} */ (kind), text }
  })
  const quote = /** @type {Token} */ ({ kind: 'quote', text: '"' })
  return [quote, ...found, ...(isClosed ? [quote] : [])]
}

/** Reindent rules; strings and comments stay unchanged. Null for incomplete rules.
 * @param {string} source @returns {string | null} */
export function format(source) {
  const parts = scan(DOCUMENT, source)
  if (!isComplete(parts)) return null
  let text = ''
  let depth = 0
  let space = ''
  /** @type {Part | undefined} */
  let before
  for (const [index, part] of parts.entries()) {
    if (part.name === 'space') {
      space = part.text
      continue
    }
    if (!space.includes('\n') && isLeading(before, part, parts[index + 1])) space = '\n'
    if (part.text === '}' || part.text === ']') depth -= 1
    text += gap(before, part, space, depth) + part.text
    if (part.text === '{' || part.text === '[') depth += 1
    before = part
    space = ''
  }
  return `${inlined(text).trim()}\n`
}

/** Whether a comment belongs to the member after it on the same line, not to the one before.
 * @param {Part | undefined} before @param {Part} part @param {Part | undefined} after */
function isLeading(before, part, after) {
  if (!part.text.startsWith('/*') || !['{', '[', ','].includes(before?.text ?? '')) return false
  return after !== undefined && !(after.name === 'space' && after.text.includes('\n'))
}

/** The text between two parts: none, a space, or a new line (a blank line where there was one).
 * @param {Part | undefined} before @param {Part} part @param {string} space @param {number} depth */
function gap(before, part, space, depth) {
  if (!before) return ''
  const lines = space.split('\n').length - 1
  const line = `${lines > 1 ? '\n\n' : '\n'}${INDENT.repeat(Math.max(0, depth))}`
  const closes = ['}', ']'].includes(part.text)
  if (before.name === 'comment') {
    if (before.text.startsWith('//') || lines || closes) return line
    return part.text === ',' ? '' : ' '
  }
  if (part.name === 'comment') return lines ? line : ' '
  const isEmpty = ['{}', '[]'].includes(before.text + part.text)
  if (isEmpty || part.text === ',' || part.text === ':') return ''
  if (before.text === ':') return ' '
  const opens = ['{', '['].includes(before.text)
  return opens || closes ? line.replace('\n\n', '\n') : line
}

/** Put short lists of scalars on one line.
 * @param {string} text */
function inlined(text) {
  const list =
    /\[\s*((?:"(?:[^"\\\n]|\\.)*"|[\w.+-]+)(?:,\s*(?:"(?:[^"\\\n]|\\.)*"|[\w.+-]+))*)\s*\]/
  const other = /"(?:[^"\\]|\\[^])*"|\/\/[^\n]*|\/\*(?:[^*]|\*(?!\/))*\*\//
  const either = new RegExp(`${list.source}|${other.source}`, 'g')
  return text.replace(either, (whole, inside) => {
    if (inside === undefined) return whole
    const short = `[${inside.replace(/("(?:[^"\\\n]|\\.)*"|[^",\s]+),\s*/g, '$1, ')}]`
    return short.length <= INLINE_CHARACTERS ? short : whole
  })
}

/** @param {Part[]} parts */
function isComplete(parts) {
  const open = []
  for (const { name, text } of parts) {
    if (name === 'wrong') return false
    if (name === 'string' && !/^"(?:[^"\\]|\\[^])*"$/.test(text)) return false
    if (text.startsWith('/*') && !/^\/\*[^]*\*\/$/.test(text)) return false
    if (text === '{' || text === '[') open.push(text)
    if (text === '}' && open.pop() !== '{') return false
    if (text === ']' && open.pop() !== '[') return false
  }
  const isEmpty = parts.every(({ name }) => name === 'space' || name === 'comment')
  return !isEmpty && !open.length
}

/** The offset of a line and column of the server: columns count characters, not UTF-16 units.
 * @param {string} source @param {number} line from 1 @param {number} column from 1 */
export function offsetOf(source, line, column) {
  const lines = source.split('\n')
  const start = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0)
  const before = [...(lines[line - 1] ?? '')].slice(0, column - 1).join('')
  return Math.min(source.length, start + before.length)
}
