/** A job that runs on a node. */

import { JobFailed, readErrorDocument, UsageError } from '../errors.ts'
import type { PlanJson, SourceJson } from '../plan/json.ts'
import { follow, type FollowedRecord, type LiveTree } from './follow.ts'
import type { Http } from './http.ts'
import { Result, rowsOf, type Page } from './result.ts'

/** How a job runs, and who hears of it. */
export interface JobOptions {
  /** The backend; the node chooses by default. */
  engine?: string
  /** Memory limit of each task, such as `"64MiB"`. */
  memCap?: string
  /** Cancels the job when aborted. */
  signal?: AbortSignal
  onProgress?: (progress: JobProgress) => void
}

export interface JobProgress {
  state: string
  done: number
  total: number | null
  bytesDone: number
  bytesTotal: number | null
  rows: number
}

interface JobRecord {
  id: string
  state: string
  progress: Omit<JobProgress, 'state'> | null
  error: unknown
  check?: JobCheck | null
}

/** How a node checks rows of a worker that was found to be wrong after the job had ended. */
export interface JobCheck {
  /** After `corrected` the result has other rows than before: read it again. */
  state: 'doubted' | 'running' | 'confirmed' | 'corrected' | 'failed'
  /** The id of the worker's token. */
  token: string
  /** Seconds since 1970. */
  since: number
  /** Why it could not be computed again, if it failed. */
  reason?: string
  /** Names of the datasets that were saved with the wrong rows, if it was corrected. */
  savedAs?: string[]
}

/** What a pipeline needs of the place where it runs. */
export interface Runner {
  /** Whether it calls functions with rows; others only translate them. */
  readonly callsFunctions?: boolean
  /** Whether it sends functions to tabs that run those of others. */
  readonly sendsFunctions?: boolean
  /** Names of a source's columns. */
  columns(source: SourceJson): Promise<readonly string[]>
  submit<R extends object>(plan: PlanJson, options: JobOptions): Promise<Job<R>>
}

/** One submitted job. */
export interface Job<R extends object> {
  readonly id: string
  /** Cancel the job; no effect if it has ended. */
  cancel(): Promise<void>
  /**
   * Wait for the end of the job.
   *
   * @throws JobFailed with the job's error if it failed or was cancelled.
   */
  wait(options?: JobOptions): Promise<void>
  /**
   * Wait, then read the whole result.
   *
   * @throws UsageError beyond five million rows: `rows` reads such a result page by page.
   */
  result(options?: JobOptions): Promise<Result<R>>
  /** Wait, then yield the rows page by page. */
  rows(options?: JobOptions): AsyncGenerator<R>
}

const ENDED = ['done', 'failed', 'cancelled']
/** Below the idle timeout of common proxies. */
const WAIT_SECONDS = 20
/** Between two readings of the progress, where somebody listens. */
const PROGRESS_SECONDS = 0.5
const PAGE_ROWS = 10_000
/** Rows that `result` holds in memory at most; `rows` has no limit. */
const RESULT_ROWS_MAX = 5_000_000

/** A job of a node; it goes on when the page is closed. */
export class NodeJob<R extends object> implements Job<R> {
  constructor(
    readonly id: string,
    private readonly http: Http,
    private readonly live: LiveTree | null = null,
  ) {}

  async cancel(): Promise<void> {
    await this.http.json(this.path(), { method: 'DELETE' })
  }

  async wait(options: JobOptions = {}): Promise<void> {
    const { signal, onProgress } = options
    const cancel = (): void => void this.cancel().catch(() => undefined)
    if (signal?.aborted) cancel()
    signal?.addEventListener('abort', cancel, { once: true })
    const hear = ({ state, progress }: FollowedRecord): boolean => {
      if (progress) onProgress?.({ ...(progress as Omit<JobProgress, 'state'>), state })
      return ENDED.includes(state)
    }
    try {
      if (this.live) await follow(this.live, this.id, hear, signal)
      const seconds = onProgress ? PROGRESS_SECONDS : WAIT_SECONDS
      for (;;) {
        signal?.throwIfAborted()
        const record = await this.http.json<JobRecord>(`${this.path()}?wait=${seconds}`, {
          ...(signal && { signal }),
        })
        if (!hear(record)) continue
        if (record.state === 'done') return
        throw this.failure(record)
      }
    } finally {
      signal?.removeEventListener('abort', cancel)
    }
  }

  /** The check of its rows; null unless one of its workers was found to be wrong later. */
  async check(): Promise<JobCheck | null> {
    return (await this.http.json<JobRecord>(this.path())).check ?? null
  }

  async result(options: JobOptions = {}): Promise<Result<R>> {
    let columns: Page['columns'] = []
    const rows: R[] = []
    for await (const page of this.pages(options)) {
      columns = page.columns
      for (const row of rowsOf<R>(page)) rows.push(row)
      if (rows.length > RESULT_ROWS_MAX)
        throw new UsageError(
          `the result has more than ${RESULT_ROWS_MAX} rows`,
          'read it with `for await (const row of pipeline)`',
        )
    }
    return new Result(columns, rows)
  }

  async *rows(options: JobOptions = {}): AsyncGenerator<R> {
    for await (const page of this.pages(options)) yield* rowsOf<R>(page)
  }

  /** Wait, then read the result as an Arrow IPC stream, for `apache-arrow` or a file. */
  async arrow(options: JobOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    await this.wait(options)
    const response = await this.http.send(`${this.path()}/result`, {
      accept: 'application/vnd.apache.arrow.stream',
      ...(options.signal && { signal: options.signal }),
    })
    return new Uint8Array(await response.arrayBuffer())
  }

  private async *pages(options: JobOptions): AsyncGenerator<Page> {
    await this.wait(options)
    for (let offset = 0; ; offset += PAGE_ROWS) {
      const page = await this.http.json<Page>(
        `${this.path()}/result?offset=${offset}&limit=${PAGE_ROWS}`,
        { ...(options.signal && { signal: options.signal }) },
      )
      yield page
      if (page.rows.length < PAGE_ROWS) return
    }
  }

  private path(): string {
    return `/api/jobs/${encodeURIComponent(this.id)}`
  }

  private failure(record: JobRecord): JobFailed {
    if (record.state === 'cancelled')
      return new JobFailed(this.id, `job ${this.id} was cancelled`, { code: 'cancelled' })
    const document = readErrorDocument(record.error)
    if (document) return new JobFailed(this.id, document.error, document)
    return new JobFailed(this.id, `job ${this.id} failed`, { code: 'internal' })
  }
}
