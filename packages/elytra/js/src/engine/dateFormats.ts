/** Dates and timestamps by formats: the directives of C's strftime that know no language. */

import { checkedDays, daysOf } from './calendar.ts'
import { ValueOutOfRange } from './types.ts'

/** How many digits a directive has in a text. */
const DIGITS: Readonly<Record<string, string>> = {
  '%Y': '4',
  '%y': '2',
  '%m': '2',
  '%d': '2',
  '%H': '2',
  '%M': '2',
  '%S': '2',
  '%f': '1,6',
  '%j': '3',
}

/** The directives of a format and the texts between them; null if it has another directive. */
export function formatParts(format: string): string[] | null {
  const long = format.replaceAll('%F', '%Y-%m-%d').replaceAll('%T', '%H:%M:%S')
  const parts = long.split(/(%[^]?)/u).filter((part) => part !== '')
  const isKnown = (part: string): boolean => Object.hasOwn(DIGITS, part) || part === '%%'
  return parts.every((part) => !part.startsWith('%') || isKnown(part)) ? parts : null
}

/** Reads texts of a format as microseconds since 1970; null for a text that is not of it. */
export function timeReader(format: string): (text: string) => number | bigint | null {
  const parts = formatParts(format) ?? []
  const directives = parts.filter((part) => Object.hasOwn(DIGITS, part))
  const source = parts.map((part) => {
    const digits = DIGITS[part]
    if (digits !== undefined) return `([0-9]{${digits}})`
    return (part === '%%' ? '%' : part).replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
  })
  const expression = new RegExp(`^${source.join('')}$`, 'u')
  return (text) => {
    const match = expression.exec(text)
    if (!match) return null
    const found = new Map<string, number>()
    // Of a directive that stands there twice the last one counts.
    directives.forEach((name, at) => {
      const digits = match[at + 1] ?? ''
      const value = Number(name === '%f' ? digits.padEnd(6, '0') : digits)
      found.set(name, value)
    })
    directives.forEach((name, at) => {
      const value = Number(match[at + 1])
      if (name === '%y') found.set('%Y', value + (value >= 69 ? 1900 : 2000))
    })
    return microsOf((name, otherwise) => found.get(name) ?? otherwise)
  }
}

function microsOf(part: (name: string, otherwise: number) => number): number | bigint | null {
  const year = part('%Y', 1900)
  const [hour, minute, second] = [part('%H', 0), part('%M', 0), part('%S', 0)]
  let days = checkedDays(year, part('%m', 1), part('%d', 1))
  if (days === null || year < 1 || hour > 23 || minute > 59 || second > 59) return null
  const ofYear = part('%j', -1)
  if (ofYear >= 0) {
    const first = daysOf({ year, month: 1, day: 1 })
    days = first + ofYear - 1
    if (days < first || days >= daysOf({ year: year + 1, month: 1, day: 1 })) return null
  }
  const seconds = days * 86_400 + hour * 3600 + minute * 60 + second
  const micros = seconds * 1e6 + part('%f', 0)
  if (Number.isSafeInteger(micros)) return micros
  return BigInt(seconds) * 1_000_000n + BigInt(part('%f', 0))
}

export function refuseFormat(text: string): never {
  throw new ValueOutOfRange(
    `${JSON.stringify(text.slice(0, 80))} does not match the format`,
    'try_strptime returns NULL',
  )
}
