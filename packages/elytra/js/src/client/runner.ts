/** The node as pipelines use it: columns of sources, and jobs. */

import type { PlanJson, SourceJson } from '../plan/json.ts'
import type { LiveTree } from './follow.ts'
import type { Http } from './http.ts'
import { NodeJob, type JobOptions, type Runner } from './job.ts'
import type { Page } from './result.ts'

/** Runs pipelines on one node; the columns of each source are asked for once. */
export class NodeRunner implements Runner {
  readonly sendsFunctions = true
  private readonly known = new Map<string, Promise<readonly string[]>>()

  constructor(
    private readonly http: Http,
    private readonly live: LiveTree | null,
  ) {}

  job<R extends object>(id: string): NodeJob<R> {
    return new NodeJob<R>(id, this.http, this.live)
  }

  columns(source: SourceJson): Promise<readonly string[]> {
    const key = JSON.stringify(source)
    const found = this.known.get(key) ?? this.ask(source)
    this.known.set(key, found)
    // A failure is not remembered: the dataset may be there at the next try.
    found.catch(() => this.known.delete(key))
    return found
  }

  async submit<R extends object>(plan: PlanJson, options: JobOptions): Promise<NodeJob<R>> {
    const { engine = 'auto', memCap, signal } = options
    const { jobId } = await this.http.json<{ jobId: string }>('/api/jobs', {
      method: 'POST',
      body: { plan, engine, ...(memCap !== undefined && { memCap }) },
      ...(signal && { signal }),
    })
    return this.job<R>(jobId)
  }

  /** The columns of a dataset, of a version of it, or of a view: by a query without rows. */
  private async ask({ dataset, version, timestamp }: SourceJson): Promise<readonly string[]> {
    const at =
      version !== undefined
        ? ` AT (VERSION => ${typeof version === 'number' ? version : quoted(version, "'")})`
        : timestamp !== undefined
          ? ` AT (TIMESTAMP => ${quoted(timestamp, "'")})`
          : ''
    const sql = `SELECT * FROM ${quoted(dataset, '"')}${at} LIMIT 0`
    const page = await this.http.json<Page>('/api/query', { method: 'POST', body: { sql } })
    return page.columns.map(({ name }) => name)
  }
}

function quoted(text: string, mark: string): string {
  return mark + text.replaceAll(mark, mark + mark) + mark
}
