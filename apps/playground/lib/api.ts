/** A client of the node's HTTP API; every failure is an ApiError. */

import type { DatasetInfo, JobInfo, SnapshotInfo } from './records'
import type { StorageReport, ViewInfo } from './storage'
import { Store } from './store'

/** The error document of every route. */
interface ErrorDocument {
  error?: unknown
  code?: unknown
  hint?: unknown
  details?: unknown
}

/** The node's error; status 0 means that the node was not reached. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
    readonly hint: string | null = null,
    readonly details: Record<string, unknown> = {},
  ) {
    super(message)
    this.name = 'ApiError'
  }

  get unreachable(): boolean {
    return this.code === 'unreachable'
  }
}

/** One column of a SQL answer. */
export interface Column {
  name: string
  type: string
}

/** The JSON form of a SQL answer. */
export interface SqlAnswer {
  columns: Column[]
  rows: unknown[][]
  truncated: boolean
  /** The engine that ran the query; null if the node did not report it. */
  engine?: string | null
}

/** A snapshot with how its file was read, newest first in lists. */
export interface ListedSnapshot extends SnapshotInfo {
  shardCount: number
  ingest?: unknown
  createdAt?: number
}

/** The body of `/api/stats`. */
export interface NodeStats {
  version: string
  uptimeSeconds: number
  memory: {
    capBytes: number
    usedBytes: number
    gatewayBytes?: number
    shares: Record<string, number>
  }
  executors: {
    pid?: number | null
    state?: string
    memoryBytes?: number
    capBytes?: number
    entry?: string | null
  }[]
  datasets: number
}

/** Whether the node requires authentication; the shell then asks for the token. */
export const signInNeeded = new Store(false)

/** Counts responses that reported damage: the list of damaged tables may be out of date then. */
export const damageSeen = new Store(0)

/** Rows a page asks for; an export has no such limit. */
const SHOWN_ROWS_MAX = 10_000

export const EXPORT_TYPES = {
  csv: 'text/csv',
  json: 'application/json',
  arrow: 'application/vnd.apache.arrow.stream',
} as const

export type ExportFormat = keyof typeof EXPORT_TYPES

/** The SQL engines; `auto` uses DuckDB, and EM-√ if DuckDB runs out of memory. */
export const ENGINES = { auto: 'Auto', duckdb: 'DuckDB', emsqrt: 'EM-√' } as const

export type Engine = keyof typeof ENGINES

export const api = {
  stats: (signal?: AbortSignal) => json<NodeStats>('GET', '/api/stats', undefined, signal),
  storage: (signal?: AbortSignal) =>
    json<StorageReport>('GET', '/api/stats/storage', undefined, signal),
  views: (signal?: AbortSignal) => json<ViewInfo[]>('GET', '/api/views', undefined, signal),
  runMaintenance: (task: string) =>
    json<{ jobId: string }>('POST', `/api/maintenance/${encodeURIComponent(task)}`),
  dataset: (id: string, signal?: AbortSignal) =>
    json<DatasetInfo>('GET', `/api/datasets/${encodeURIComponent(id)}`, undefined, signal),
  damaged: () => json<DatasetInfo[]>('GET', '/api/datasets?damaged=true'),
  /** A snapshot, by id or as `head`, with its first thousand shards. */
  snapshot: (id: string, snapshot: string, signal?: AbortSignal) =>
    json<ListedSnapshot>(
      'GET',
      `/api/datasets/${encodeURIComponent(id)}/snapshots/${snapshot}`,
      undefined,
      signal,
    ),
  deleteDataset: (id: string) => json<null>('DELETE', `/api/datasets/${encodeURIComponent(id)}`),
  cancelJob: (id: string) => json<null>('DELETE', `/api/jobs/${encodeURIComponent(id)}`),
  job: (id: string, signal?: AbortSignal) =>
    json<JobInfo>('GET', `/api/jobs/${encodeURIComponent(id)}`, undefined, signal),
  submit: (plan: unknown) => json<{ jobId: string }>('POST', '/api/jobs', { plan }),
  /** Run a query; the result names the engine that ran it. */
  async query(
    sql: string,
    engine: Engine,
    signal?: AbortSignal,
    deadlineSeconds?: number,
  ): Promise<SqlAnswer> {
    const response = await ask(
      'POST',
      '/api/query',
      {
        sql,
        engine,
        maxRows: SHOWN_ROWS_MAX,
        ...(deadlineSeconds === undefined ? {} : { deadlineSeconds }),
      },
      signal,
    )
    const answer = await whole(response, (body) => body.json() as Promise<SqlAnswer>)
    return { ...answer, engine: response.headers.get('Sennit-Engine') }
  },
  /** A range of the rows of a job's result. */
  jobRows: (id: string, offset: number, limit: number, signal?: AbortSignal) =>
    json<SqlAnswer>(
      'GET',
      `/api/jobs/${encodeURIComponent(id)}/result?offset=${offset}&limit=${limit}`,
      undefined,
      signal,
    ),

  /** The whole result of a query as a file. */
  exportQuery: (sql: string, engine: Engine, format: ExportFormat) =>
    download('/api/query', format, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ sql, engine }),
    }),

  /** The whole result of a job as a file. */
  exportJob: (id: string, format: ExportFormat) =>
    download(`/api/jobs/${encodeURIComponent(id)}/result`, format, { method: 'GET' }),

  /** Exchange a token for the browser's cookie. */
  async signIn(token: string): Promise<void> {
    await json('POST', '/api/session', { token })
    signInNeeded.set(false)
  },
}

async function download(path: string, format: ExportFormat, init: RequestInit): Promise<Blob> {
  const response = await reach(path, {
    ...init,
    headers: { ...init.headers, Accept: EXPORT_TYPES[format] },
  })
  return whole(response, (body) => body.blob())
}

/** A request whose answer is JSON. */
export async function json<T>(
  method: string,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<T> {
  const response = await ask(method, path, body, signal)
  const text = await whole(response, (each) => each.text())
  return (text ? JSON.parse(text) : null) as T
}

/**
 * A long request that is answered with a line for each report of its progress; returns the last one.
 * Ending it by `signal` ends the work.
 */
export async function reports<T extends { done: boolean }>(
  path: string,
  body: unknown,
  onReport: (report: T) => void,
  signal: AbortSignal,
): Promise<T> {
  const response = await ask('POST', path, body, signal)
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  let last: T | null = null
  for (;;) {
    const piece = await whole(response, () => reader?.read() ?? Promise.resolve(undefined))
    const lines = (text + (piece?.value ?? '')).split('\n')
    text = lines.pop() ?? ''
    for (const line of lines) {
      const report = JSON.parse(line) as T & ErrorDocument
      // The status was sent before the failure.
      if (typeof report.code === 'string') throw refusal(response, report)
      last = report
      onReport(report)
    }
    if (!piece || piece.done) break
  }
  if (last?.done) return last
  throw new ApiError(
    'The answer ended early.',
    response.status,
    'unavailable',
    'The node, or the network, went away. Try again, or look at `platform status`.',
  )
}

function ask(
  method: string,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<Response> {
  return reach(path, {
    method,
    headers: {
      Accept: 'application/json',
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
    },
    body: body === undefined ? null : JSON.stringify(body),
    signal: signal ?? null,
  })
}

async function reach(path: string, init: RequestInit): Promise<Response> {
  let response: Response
  try {
    response = await fetch(path, init)
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error
    throw new ApiError(
      'The node cannot be reached.',
      0,
      'unreachable',
      'Start it with `platform up`, or look at `platform status`.',
    )
  }
  if (response.ok) return response
  const body = (await response.json().catch(() => ({}))) as ErrorDocument
  if (response.status === 401 && path !== '/api/session') signInNeeded.set(true)
  throw refusal(response, body)
}

/** Read a body to its end. If the node aborted it, throw the node's error. */
async function whole<T>(response: Response, read: (response: Response) => Promise<T>): Promise<T> {
  try {
    return await read(response)
  } catch (error) {
    if (isAbort(error)) throw error
    throw await whyAborted(response)
  }
}

/** The status of an aborted response was sent before the failure; its error is stored by id. */
async function whyAborted(response: Response): Promise<ApiError> {
  const id = response.headers.get('Sennit-Result')
  if (id !== null) {
    try {
      const kept = await fetch(`/api/results/${encodeURIComponent(id)}`)
      if (kept.ok) return refusal(response, (await kept.json()) as ErrorDocument)
    } catch {
      // The node is unreachable: report the error below.
    }
  }
  return new ApiError(
    'The connection closed before the end of the answer.',
    response.status,
    'unavailable',
    'The node, or the network, went away. Ask again, or look at `platform status`.',
  )
}

function refusal(response: Response, body: ErrorDocument): ApiError {
  if (body.code === 'corrupt') damageSeen.set(damageSeen.get() + 1)
  const details = typeof body.details === 'object' && body.details !== null ? body.details : {}
  return new ApiError(
    typeof body.error === 'string' ? body.error : `The node answered ${response.status}.`,
    response.status,
    typeof body.code === 'string' ? body.code : 'internal',
    typeof body.hint === 'string' ? body.hint : null,
    details as Record<string, unknown>,
  )
}

/** Whether an error is the result of our own cancellation. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError'
}

/** Any thrown value as an ApiError. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  return new ApiError(error instanceof Error ? error.message : String(error), 0, 'internal')
}
