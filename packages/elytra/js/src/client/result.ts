/** The rows of a job. */

/** A column of a result; `type` is Arrow's name of it. */
export interface ResultColumn {
  name: string
  type: string
}

/** One page of rows, as the node sends it. */
export interface Page {
  columns: ResultColumn[]
  rows: unknown[][]
  truncated?: boolean
}

/** A whole result in memory. */
export class Result<R extends object> {
  constructor(
    readonly columns: readonly ResultColumn[],
    readonly rows: readonly R[],
  ) {}

  /** The value of a result with one row and one column. */
  get value(): R[keyof R] {
    const [row] = this.rows
    const [column] = this.columns
    if (this.rows.length !== 1 || this.columns.length !== 1 || !row || !column)
      throw new RangeError(
        `a result of ${this.rows.length} rows and ${this.columns.length} columns is not one value`,
      )
    return row[column.name as keyof R]
  }
}

/**
 * The rows of a page as objects. Numbers beyond 2^53 arrive as text: integers become a BigInt here,
 * NaN and the infinities a number; decimals, dates and times stay text.
 */
export function rowsOf<R extends object>({ columns, rows }: Page): R[] {
  const readers = columns.map(({ type }) => readerOf(type))
  return rows.map((row) => {
    const entries = row.map((value, at): [string, unknown] => [
      columns[at]?.name ?? '',
      typeof value === 'string' ? (readers[at]?.(value) ?? value) : value,
    ])
    return Object.fromEntries(entries) as R
  })
}

function readerOf(type: string): ((text: string) => unknown) | undefined {
  if (/^u?int\d+$/i.test(type)) return BigInt
  if (/^(float|double|halffloat)/i.test(type)) return numberOf
  return undefined
}

function numberOf(text: string): number {
  const named: Record<string, number> = { NaN: NaN, Infinity: Infinity, '-Infinity': -Infinity }
  return named[text] ?? Number(text)
}
