/** Where the statements of a text begin and end. */

/** One statement; `from` and `to` are character offsets into the whole text. */
export interface Statement {
  text: string
  from: number
  to: number
}

/** Skips over what may hold a semicolon that ends nothing: quotes, comments, dollar quotes. */
const ATOM =
  /'(?:[^']|'')*(?:'|$)|"(?:[^"]|"")*(?:"|$)|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|\$(\w*)\$[\s\S]*?(?:\$\1\$|$)|[^;]/y

/** Every statement of a text that is more than white space and comments. */
export function splitStatements(text: string): Statement[] {
  const statements: Statement[] = []
  let from = 0
  let at = 0
  const end = (to: number) => {
    const trimmed = trim(text, from, to)
    if (hasWords(trimmed.text)) statements.push(trimmed)
  }
  while (at < text.length) {
    ATOM.lastIndex = at
    if (ATOM.exec(text)) {
      at = ATOM.lastIndex
      continue
    }
    end(at)
    at += 1
    from = at
  }
  end(text.length)
  return statements
}

/** The statement the cursor is in or just behind; the nearest one before it, else the first. */
export function statementAt(text: string, position: number): Statement | null {
  const statements = splitStatements(text)
  return statements.findLast((statement) => statement.from <= position) ?? statements[0] ?? null
}

function trim(text: string, from: number, to: number): Statement {
  while (from < to && /\s/.test(text[from]!)) from += 1
  while (to > from && /\s/.test(text[to - 1]!)) to -= 1
  return { text: text.slice(from, to), from, to }
}

function hasWords(text: string): boolean {
  return text.replace(/--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/g, '').trim() !== ''
}
