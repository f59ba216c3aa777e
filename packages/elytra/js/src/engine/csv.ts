/**
 * CSV as batches of columns: one pass over the bytes, which decodes the needed columns only.
 *
 * RFC 4180 and what files have besides: a byte-order mark, LF and CRLF, blank lines, quotes in the
 * middle of a field. An unquoted empty field is NULL; a quoted one is an empty text.
 */

import { SennitError } from '../errors.ts'
import type { Batch } from './batch.ts'
import { targetOf, type Target } from './csvFields.ts'
import { scanOf, type Scan, type ScanState } from './csvScan.ts'
import { typeText, type Field } from './types.ts'

/** Rows of a batch: its columns fit into the cache of a core. */
export const BATCH_ROWS = 16_384
/** The longest record. */
export const RECORD_BYTES_MAX = 64 << 20

const QUOTE = 34
const LF = 10
const CR = 13

export interface CsvOptions {
  /** The byte between fields. */
  delimiter?: number
}

/** A file that is no CSV of its columns; the message has the line. */
export class BadInput extends SennitError {
  constructor(line: number, reason: string) {
    super(`line ${line}: ${reason}`, { code: 'bad-input', hint: 'pass the columns: { schema }' })
  }
}

/** Reads records that come in pieces of any size. */
export class CsvReader {
  private rest = new Uint8Array(0)
  private line: number
  private readonly delimiter: number
  /** The target of each field of a record; null for a column that is not read. */
  private targets: (Target | null)[] = []
  private row = 0
  /** Reads plain records; null for a layout without one. */
  private readonly scan: Scan | null
  private readonly state: ScanState = { at: 0, row: 0, lines: 0 }

  /**
   * @param fields all columns of the file, in order.
   * @param columns the names of those to read.
   * @param firstLine the number of the first line that is added.
   * @param reuses whether a batch may be overwritten by the next one.
   */
  constructor(
    private readonly fields: readonly Field[],
    private readonly columns: ReadonlySet<string>,
    options: CsvOptions = {},
    firstLine = 1,
    private readonly reuses = false,
  ) {
    this.delimiter = options.delimiter ?? 44
    this.line = firstLine
    this.scan = scanOf(
      fields.map(({ name, type }) => (columns.has(name) ? type : null)),
      this.delimiter,
    )
    this.begin()
  }

  /** Read the records that a piece ends; yields full batches. */
  *add(piece: Uint8Array): Generator<Batch> {
    let from = 0
    // The end of a record that has begun before; more bytes each time, because it may have many lines.
    for (let size = 256; this.rest.length > 0 && from < piece.length; size *= 2) {
      const end = lineEnd(piece, from + size)
      yield* this.addWhole(concatenated(this.rest, piece.subarray(from, end)))
      from = end
    }
    if (from < piece.length) yield* this.addWhole(piece.subarray(from))
  }

  private *addWhole(bytes: Uint8Array): Generator<Batch> {
    const end = yield* this.records(bytes, false)
    this.rest = bytes.slice(end)
    if (this.rest.length > RECORD_BYTES_MAX)
      throw new BadInput(this.line, `a record of more than ${RECORD_BYTES_MAX >> 20} MiB`)
  }

  /** Read the last record, which may have no line end; yields the last batch. */
  *finish(): Generator<Batch> {
    yield* this.records(this.rest, true)
    this.rest = new Uint8Array(0)
    if (this.row > 0) yield* this.batch()
  }

  /** Read whole records; returns where the first that is not whole begins. */
  private *records(bytes: Uint8Array, isLast: boolean): Generator<Batch, number> {
    const limit = bytes.lastIndexOf(LF) + 1
    let at = 0
    while (at < bytes.length) {
      at = this.scanned(bytes, at, limit)
      if (this.row < BATCH_ROWS && at < bytes.length) {
        const end = this.record(bytes, at, isLast)
        if (end < 0) break
        at = end
      }
      if (this.row === BATCH_ROWS) yield* this.batch()
    }
    return at
  }

  /** Read plain records; returns where one begins that is not plain, or not whole. */
  private scanned(bytes: Uint8Array, at: number, limit: number): number {
    const { scan, state, targets } = this
    // Whole numbers in bigints are stored by the careful reader alone.
    const isPlain = targets.every((target) => !target || !isBig(target.values))
    if (!scan || at >= limit || !isPlain) return at
    scan(bytes, at, limit, this.row, BATCH_ROWS, targets, state)
    this.row = state.row
    this.line += state.lines
    return state.at
  }

  /** Read one record; returns its end, or -1 if the bytes have only its beginning. */
  private record(bytes: Uint8Array, from: number, isLast: boolean): number {
    const { delimiter, targets } = this
    const length = bytes.length
    let at = from
    let column = 0
    let lines = 1
    for (;;) {
      const start = at
      let isQuoted = false
      let hasQuotes = false
      if (bytes[at] === QUOTE) {
        isQuoted = true
        at += 1
        for (; at < length; at += 1) {
          const byte = bytes[at]
          if (byte === LF) lines += 1
          if (byte !== QUOTE) continue
          if (bytes[at + 1] !== QUOTE) break
          hasQuotes = true
          at += 1
        }
        if (at >= length) return this.cutQuote(isLast)
        at += 1
      }
      // What follows a closing quote belongs to the field, as csv.reader has it.
      const closed = at
      let byte = bytes[at]
      while (at < length && byte !== delimiter && byte !== LF) byte = bytes[++at]
      if (at >= length && !isLast) return -1
      let end = at
      if (byte !== delimiter && end > start && bytes[end - 1] === CR) end -= 1
      const isBlank = column === 0 && byte !== delimiter && end === start
      if (isBlank && targets.length > 1) {
        this.line += 1
        return at + 1
      }
      const target = targets[column]
      if (target === undefined) return this.ragged(column + 1)
      if (target) {
        if (isQuoted) this.putQuoted(target, bytes, start, closed, end, hasQuotes, column)
        else this.put(target, bytes, start, end, column)
      }
      column += 1
      at += 1
      if (byte !== delimiter || at > length) break
    }
    if (column !== targets.length) return this.ragged(column)
    this.row += 1
    this.line += lines
    return at
  }

  private put(target: Target, bytes: Uint8Array, start: number, end: number, column: number): void {
    if (start === end) this.putNull(target)
    else if (!target.store(bytes, start, end, this.row)) this.misfit(bytes, start, end, column)
  }

  private putQuoted(
    target: Target,
    bytes: Uint8Array,
    start: number,
    closed: number,
    end: number,
    hasQuotes: boolean,
    column: number,
  ): void {
    const inner = hasQuotes || closed !== end ? unquoted(bytes, start, closed, end) : null
    const [from, until] = inner ? [0, inner.length] : [start + 1, closed - 1]
    const source = inner ?? bytes
    const isText = this.fields[column]?.type.name === 'Utf8'
    if (from === until && !isText) this.putNull(target)
    else if (!target.store(source, from, until, this.row)) this.misfit(source, from, until, column)
  }

  private putNull(target: Target): void {
    target.nulls[this.row] = 1
    target.hasNulls = true
  }

  private misfit(bytes: Uint8Array, start: number, end: number, column: number): never {
    const { name, type } = this.fields[column] ?? { name: '', type: { name: 'Utf8' as const } }
    const shown = new TextDecoder().decode(bytes.subarray(start, Math.min(end, start + 80)))
    const problem =
      type.name === 'Utf8' ? 'is not UTF-8' : `${JSON.stringify(shown)} is not a ${typeText(type)}`
    throw new BadInput(this.line, `column ${JSON.stringify(name)}: ${problem}`)
  }

  private ragged(count: number): never {
    const more = count > this.targets.length ? 'more than' : `${count} fields, expected`
    throw new BadInput(
      this.line,
      `${more} ${this.targets.length}${count > this.targets.length ? ' fields' : ''}`,
    )
  }

  private cutQuote(isLast: boolean): -1 {
    if (isLast) throw new BadInput(this.line, 'a quote that is never closed')
    return -1
  }

  private begin(): void {
    this.row = 0
    this.targets = this.fields.map(({ name, type }, at) =>
      this.columns.has(name) ? this.target(type, this.targets[at]) : null,
    )
  }

  private target(type: Field['type'], before: Target | null | undefined): Target {
    const isKept = this.reuses && before && !isBig(before.values) && !before.dictionary?.isFull
    if (!isKept) return targetOf(type, BATCH_ROWS, before)
    if (before.hasNulls) before.nulls.fill(0)
    before.hasNulls = false
    return before
  }

  private *batch(): Generator<Batch> {
    const fields: Field[] = []
    const columns = this.targets.flatMap((target, at) => {
      const field = this.fields[at]
      if (!target || !field) return []
      fields.push(field)
      const { values, nulls, hasNulls, dictionary } = target
      const kept = values.subarray(0, this.row)
      const marks = hasNulls ? nulls.subarray(0, this.row) : null
      return [{ values: kept, nulls: marks, ...(dictionary && { dictionary }) }]
    })
    yield { fields, columns, rows: this.row }
    this.begin() // not before the batch was used: its arrays may be filled again
  }
}

function isBig(values: Target['values']): boolean {
  return values instanceof BigInt64Array || values instanceof BigUint64Array
}

/** The place behind the first line end at or behind a place; the end of the bytes if there is none. */
function lineEnd(bytes: Uint8Array, from: number): number {
  const found = bytes.indexOf(LF, from)
  return found < 0 ? bytes.length : found + 1
}

/** A quoted field without its quotes, and with single quotes for doubled ones. */
function unquoted(bytes: Uint8Array, start: number, closed: number, end: number): Uint8Array {
  const made = new Uint8Array(end - start)
  let size = 0
  for (let at = start + 1; at < closed - 1; at += 1) {
    made[size++] = bytes[at] ?? 0
    if (bytes[at] === QUOTE) at += 1
  }
  for (let at = closed; at < end; at += 1) made[size++] = bytes[at] ?? 0
  return made.subarray(0, size)
}

function concatenated(first: Uint8Array, second: Uint8Array): Uint8Array {
  if (first.length === 0) return second
  const made = new Uint8Array(first.length + second.length)
  made.set(first)
  made.set(second, first.length)
  return made
}

/** The fields of a line, as texts; for headers and samples. */
export function* textRecords(
  bytes: Uint8Array,
  options: CsvOptions = {},
): Generator<[string[], number]> {
  const delimiter = options.delimiter ?? 44
  let at = 0
  while (at < bytes.length) {
    const fields: string[] = []
    for (;;) {
      const end = fieldEnd(bytes, at, delimiter)
      const isQuoted = bytes[at] === QUOTE
      let stop = end
      if (bytes[end] !== delimiter && stop > at && bytes[stop - 1] === CR) stop -= 1
      const raw = isQuoted
        ? unquoted(bytes, at, closingQuote(bytes, at) + 1, stop)
        : bytes.subarray(at, stop)
      // A quoted empty field is a text; an unquoted one is no value.
      fields.push(isQuoted && raw.length === 0 ? '""' : new TextDecoder().decode(raw))
      at = end + 1
      if (bytes[end] !== delimiter) break
    }
    yield [fields, Math.min(at, bytes.length)]
  }
}

function closingQuote(bytes: Uint8Array, from: number): number {
  for (let at = from + 1; at < bytes.length; at += 1) {
    if (bytes[at] !== QUOTE) continue
    if (bytes[at + 1] !== QUOTE) return at
    at += 1
  }
  return bytes.length - 1
}

function fieldEnd(bytes: Uint8Array, from: number, delimiter: number): number {
  let at = bytes[from] === QUOTE ? closingQuote(bytes, from) + 1 : from
  while (at < bytes.length && bytes[at] !== delimiter && bytes[at] !== LF) at += 1
  return at
}
