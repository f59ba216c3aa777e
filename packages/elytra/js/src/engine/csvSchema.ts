/** The columns of a CSV file, from its header and the first megabyte. */

import { parseDay, parseTimestamp } from './calendar.ts'
import { BadInput, textRecords, type CsvOptions } from './csv.ts'
import { INT64, parseType, UINT64, type Field, type Type } from './types.ts'

export const SAMPLE_BYTES = 1 << 20

/** The types that a column is tried as, in order; the first that holds all values is its type. */
const CANDIDATES: readonly [Type, (text: string) => boolean][] = [
  [INT64, (text) => isWhole(text, -(2n ** 63n), 2n ** 63n)],
  [UINT64, (text) => isWhole(text, 0n, 2n ** 64n)],
  [parseType('Bool'), (text) => /^(true|false)$/i.test(text)],
  [parseType('Date'), (text) => parseDay(text) !== null],
  ...['s', 's,UTC', 'us', 'us,UTC'].map((unit): [Type, (text: string) => boolean] => {
    const type = parseType(`Timestamp(${unit})`)
    return [type, (text) => parseTimestamp(text, type) !== null]
  }),
  [parseType('Float64'), (text) => FLOAT.test(text.trim())],
]

const FLOAT = /^([+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan))$/i
/** A number with leading zeros is a code: as a number, the postal code 02134 would lose its zero. */
const CODE = /^[ \t]*[+-]?0\d/
const LARGE = /\d{16}/
const NOT_WHOLE = /[^\d+\s-]/

function isWhole(text: string, low: bigint, end: bigint): boolean {
  if (!/^-?\d{1,20}$/.test(text.trim())) return false
  const value = BigInt(text.trim())
  return value >= low && value < end
}

/** The columns, and where the first record begins. */
export interface CsvSchema {
  fields: Field[]
  start: number
}

/**
 * Infer the columns of a file as the node does.
 *
 * @param sample its beginning.
 * @param isWhole whether the sample is the whole file.
 * @throws BadInput if a record has another number of fields than the header.
 */
export function inferCsv(
  sample: Uint8Array,
  isWhole: boolean,
  options: CsvOptions = {},
): CsvSchema {
  const mark = sample[0] === 0xef && sample[1] === 0xbb && sample[2] === 0xbf ? 3 : 0
  // The last record of a sample may be cut.
  const end = isWhole ? sample.length : sample.lastIndexOf(10) + 1
  const records = textRecords(sample.subarray(mark, end), options)
  const header = records.next()
  if (header.done) throw new BadInput(1, 'the file has no header')
  const [names, start] = header.value
  checkNames(names)
  const columns = names.map(() => new ColumnGuess())
  let line = 1
  for (const [fields] of records) {
    line += 1
    if (fields.length === 1 && fields[0] === '' && names.length > 1) continue
    if (fields.length !== names.length)
      throw new BadInput(line, `${fields.length} fields, expected ${names.length}`)
    fields.forEach((text, at) => columns[at]?.add(text))
  }
  const fields = names.map((name, at) => ({
    name,
    type: columns[at]?.type ?? { name: 'Utf8' as const },
  }))
  return { fields, start: mark + start }
}

function checkNames(names: readonly string[]): void {
  names.forEach((name, at) => {
    if (name === '' || name === '""') throw new BadInput(1, `column ${at + 1} has no name`)
    const other = names.indexOf(name)
    if (other !== at)
      throw new BadInput(
        1,
        `columns ${other + 1} and ${at + 1} are both named ${JSON.stringify(name)}`,
      )
  })
}

/** The first type that holds all values so far. */
class ColumnGuess {
  private candidate = 0
  private readonly seen: string[] = []
  private isCode = false
  private isLarge = false
  private hasFractions = false

  add(text: string): void {
    if (text === '' || text === '""') return
    this.isCode ||= CODE.test(text)
    this.isLarge ||= LARGE.test(text)
    this.hasFractions ||= NOT_WHOLE.test(text)
    while (this.candidate < CANDIDATES.length && !CANDIDATES[this.candidate]?.[1](text)) this.next()
    this.seen.push(text)
  }

  get type(): Type {
    const found = this.seen.length > 0 ? CANDIDATES[this.candidate]?.[0] : undefined
    if (!found) return { name: 'Utf8' }
    const isNumber = ['Int64', 'UInt64', 'Float64'].includes(found.name)
    if (isNumber && this.isCode) return { name: 'Utf8' }
    // Whole numbers beyond 64 bits would lose digits as floats; the node makes decimals of them.
    return found.name === 'Float64' && this.isLarge && !this.hasFractions ? { name: 'Utf8' } : found
  }

  /** The next candidate that holds what was seen before. */
  private next(): void {
    do this.candidate += 1
    while (
      this.candidate < CANDIDATES.length &&
      !this.seen.every((text) => CANDIDATES[this.candidate]?.[1](text))
    )
  }
}
