/** The ingest report of a snapshot's manifest: detected format and automatic changes. */

import { formatBytes, formatCount } from './format'

/** A column that was widened, because a value did not fit its inferred type. */
export interface Widening {
  column: string
  from: string
  to: string
  line: number | null
  value: string | null
}

/** The report in the words a page shows. */
export interface IngestSummary {
  facts: [name: string, value: string][]
  widened: Widening[]
  /** How many more columns became wider than `widened` has. */
  widenedMore: number
  notes: string[]
}

const DELIMITERS: Record<string, string> = {
  ',': 'Comma',
  ';': 'Semicolon',
  '\t': 'Tab',
  '|': 'Bar',
}
const FORMATS: Record<string, string> = {
  csv: 'CSV',
  parquet: 'Parquet',
  arrow: 'Arrow',
  'arrow-stream': 'Arrow stream',
  json: 'JSON',
  jsonl: 'JSON lines',
}
const ENCODINGS: Record<string, string> = {
  'utf-8': 'UTF-8',
  'utf-16-le': 'UTF-16',
  'utf-16-be': 'UTF-16',
  cp1252: 'Windows-1252',
}

/** Read `{name, source, report}`; null when there is none, as for data that was computed. */
export function summarise(ingest: unknown): IngestSummary | null {
  const { name, source, report } = record(ingest)
  const found = record(source)
  if (typeof found.format !== 'string') return null
  const facts: [string, string][] = [['Format', FORMATS[found.format] ?? found.format]]
  if (typeof name === 'string') facts.unshift(['File', name])
  if (typeof found.compression === 'string') facts.push(['Compression', compression(found)])
  if (typeof found.encoding === 'string')
    facts.push(['Encoding', ENCODINGS[found.encoding] ?? found.encoding])
  if (typeof found.delimiter === 'string')
    facts.push(['Delimiter', DELIMITERS[found.delimiter] ?? found.delimiter])
  if (typeof found.header === 'boolean')
    facts.push(['Header', found.header ? 'First line' : 'None'])
  const { widened, renamed, notes, omitted } = record(report)
  const more = record(omitted)
  return {
    facts,
    widened: list(widened).map(widening),
    widenedMore: count(more.widened),
    notes: [
      ...list(renamed).map(renaming),
      ...andMore(more.renamed, 'column with another name', 'columns with other names'),
      ...list(notes).map(remark),
      ...andMore(more.notes, 'remark', 'remarks'),
    ],
  }
}

function compression({ compression, bytes, bytesUnpacked }: Record<string, unknown>): string {
  const sizes = [bytes, bytesUnpacked].filter((size) => typeof size === 'number').map(formatBytes)
  return `${String(compression)}${sizes.length === 2 ? `, ${sizes[0]} to ${sizes[1]}` : ''}`
}

function count(value: unknown): number {
  return typeof value === 'number' ? value : 0
}

/** A report has the first entries of each list, and how many it left out. */
function andMore(left: unknown, word: string, words: string): string[] {
  return count(left) > 0
    ? [`And ${formatCount(count(left))} more ${count(left) === 1 ? word : words}.`]
    : []
}

function widening(entry: Record<string, unknown>): Widening {
  return {
    column: String(entry.column),
    from: String(entry.from ?? ''),
    to: String(entry.to ?? 'Utf8'),
    line: typeof entry.line === 'number' ? entry.line : null,
    value: typeof entry.value === 'string' ? entry.value : null,
  }
}

function renaming({ column, from, to }: Record<string, unknown>): string {
  const place = typeof column === 'number' ? `Column ${column + 1}` : 'A column'
  return from
    ? `${place} is called ${String(to)}, because “${String(from)}” was taken.`
    : `${place} had no name and is called ${String(to)}.`
}

function remark({ column, line, note }: Record<string, unknown>): string {
  const place = [column ? String(column) : null, typeof line === 'number' ? `line ${line}` : null]
    .filter(Boolean)
    .join(', ')
  return place ? `${place}: ${String(note)}` : String(note)
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}

function list(value: unknown): Record<string, unknown>[] {
  return Object.values(record(value)).map(record)
}
