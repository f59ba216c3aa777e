/** The profile of a table's columns: asked for in small queries, so that it moves, ends and can stop. */

import { isAbort, type ApiError, asApiError, type SqlAnswer } from './api'
import { quoteName } from './sql/names'

/** What a profile adds to a column; null where it does not apply to the type. */
export interface ColumnProfile {
  distinct: unknown
  mean: unknown
  median: unknown
}

export interface ProfiledColumn {
  name: string
  type: string
}

/** `stopped`: cancelled, or out of time; the columns that were finished stay. */
export interface ProfileState {
  state: 'idle' | 'running' | 'stopped' | 'failed' | 'done'
  columns: ReadonlyMap<string, ColumnProfile>
  error: ApiError | null
  outOfTime: boolean
}

export const NO_PROFILE: ProfileState = {
  state: 'idle',
  columns: new Map(),
  error: null,
  outOfTime: false,
}

/** Columns of one query: few enough that a batch over 10 million rows ends in seconds. */
const BATCH = 8
/** Larger tables are profiled from about this many rows. */
export const SAMPLE_ROWS = 5_000_000
/** One click costs a node no more than this. */
const BUDGET_SECONDS = 60

/** The query that profiles some columns: one row, three values for each column. */
export function profileSql(
  table: string,
  rows: number,
  columns: readonly ProfiledColumn[],
): string {
  const values = columns.flatMap(({ name, type }) => {
    const column = quoteName(name)
    const numeric = /^(U?Int|Float|Decimal)/i.test(type)
    const ordered = numeric || /^(Date|Timestamp)/i.test(type)
    const nested = /^(List|Struct|Map)/i.test(type)
    return [
      nested ? 'null' : `approx_count_distinct(${column})`,
      numeric ? `avg(${column})` : 'null',
      ordered ? `approx_quantile(${column}, 0.5)` : 'null',
    ]
  })
  const named = values.map((value, index) => `${value} as v${index}`).join(', ')
  const percent = Math.max(0.01, (100 * SAMPLE_ROWS) / rows)
  const sample = rows > SAMPLE_ROWS ? ` tablesample system (${percent.toFixed(2)} percent)` : ''
  return `select ${named} from ${quoteName(table)}${sample}`
}

/** Profile the columns that `known` lacks, batch by batch; `onState` hears of every batch. */
export async function profileColumns(
  table: { name: string; rows: number; columns: readonly ProfiledColumn[] },
  known: ReadonlyMap<string, ColumnProfile>,
  query: (sql: string, deadlineSeconds: number) => Promise<SqlAnswer>,
  onState: (state: ProfileState) => void,
  nowMs: () => number = () => performance.now(),
): Promise<void> {
  let columns = new Map(known)
  const left = table.columns.filter(({ name }) => !columns.has(name))
  const endMs = nowMs() + BUDGET_SECONDS * 1000
  const notify = (state: ProfileState['state'], error: ApiError | null = null, outOfTime = false) =>
    onState({ state, columns, error, outOfTime })
  notify('running')
  while (left.length > 0) {
    const seconds = (endMs - nowMs()) / 1000
    if (seconds <= 0) return notify('stopped', null, true)
    const batch = left.splice(0, BATCH)
    try {
      const { rows } = await query(profileSql(table.name, table.rows, batch), seconds)
      columns = new Map(columns)
      batch.forEach(({ name }, at) => {
        const [distinct, mean, median] = (rows[0] ?? []).slice(at * 3)
        columns.set(name, { distinct, mean, median })
      })
    } catch (reason) {
      if (isAbort(reason)) return notify('stopped')
      const error = asApiError(reason)
      if (error.code === 'deadline-exceeded') return notify('stopped', null, true)
      return notify('failed', error)
    }
    notify(left.length > 0 ? 'running' : 'done')
  }
}
