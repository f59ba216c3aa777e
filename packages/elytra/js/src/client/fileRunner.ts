/** Pipelines over a file that is here; the engine is loaded by the first one that runs. */

import { UsageError } from '../errors.ts'
import type { PlanJson, SourceJson } from '../plan/json.ts'
import type { FileJobs } from './fileJobs.ts'
import type { Job, JobOptions, Runner } from './job.ts'

/** How a file is read. */
export interface FileOptions {
  /** Types of columns by name, such as `{ zip: 'Utf8' }`; those of others are inferred. */
  schema?: Readonly<Record<string, string>>
  /** The character between fields, a comma by default. */
  delimiter?: string
}

/** Runs plans over one CSV file. */
export class FileRunner implements Runner {
  readonly callsFunctions = true
  private readonly jobs: () => Promise<FileJobs>
  private loaded: Promise<FileJobs> | null = null

  constructor(file: Blob, { schema = {}, delimiter = ',' }: FileOptions) {
    if (delimiter.length !== 1 || delimiter.charCodeAt(0) > 127 || '"\r\n'.includes(delimiter))
      throw new UsageError(
        `${JSON.stringify(delimiter)} is not a delimiter: one ASCII character is`,
      )
    this.jobs = async () => {
      const { FileJobs: Jobs } = await import('./fileJobs.ts')
      return new Jobs(file, schema, { delimiter: delimiter.charCodeAt(0) })
    }
  }

  async columns(source: SourceJson): Promise<readonly string[]> {
    return (await this.load()).columns(source)
  }

  async submit<R extends object>(plan: PlanJson, options: JobOptions): Promise<Job<R>> {
    void options // they are of the job's methods
    return (await this.load()).submit<R>(plan)
  }

  private load(): Promise<FileJobs> {
    this.loaded ??= this.jobs()
    // A module that was not loaded may be at the next try.
    this.loaded.catch(() => (this.loaded = null))
    return this.loaded
  }
}
