/** Pipelines over a file that is here: computed by this thread, slice by slice. */

import type { Batch } from '../engine/batch.ts'
import { valueAt } from '../engine/batch.ts'
import { CsvReader, type CsvOptions } from '../engine/csv.ts'
import { inferCsv, SAMPLE_BYTES, type CsvSchema } from '../engine/csvSchema.ts'
import { shownValue } from '../engine/literals.ts'
import { PlanRun } from '../engine/planRun.ts'
import { parseType, typeText, type Field } from '../engine/types.ts'
import { JobFailed, SennitError, UsageError } from '../errors.ts'
import type { PlanJson, SourceJson } from '../plan/json.ts'
import { ChainRun, partsOf, type StepOf } from './chainRun.ts'
import type { Job, JobOptions, Runner } from './job.ts'
import { Result } from './result.ts'

/** Bytes that are read and computed at once; the page can react in between. */
const SLICE_BYTES = 4 << 20

/** The code of sandboxes is loaded by pages that use it. */
const stepOf: StepOf = async (node, fields) => {
  const { OpaqueStep } = await import('../sandbox/step.ts')
  return new OpaqueStep(node, fields)
}

/** Plans over one CSV file. */
export class FileJobs implements Runner {
  private known: Promise<CsvSchema> | null = null
  private jobs = 0

  constructor(
    private readonly file: Blob,
    private readonly types: Readonly<Record<string, string>>,
    private readonly options: CsvOptions,
  ) {}

  async columns(source: SourceJson): Promise<readonly string[]> {
    void source // there is one
    return (await this.schema()).fields.map(({ name }) => name)
  }

  async submit<R extends object>(plan: PlanJson): Promise<Job<R>> {
    const { fields, start } = await this.schema()
    const parts = partsOf(plan)
    const read = PlanRun.inputOf(parts[0] ?? plan, fields)
    const names = new Set(read.map(({ name }) => name))
    const run = await ChainRun.of(parts, read, stepOf)
    const reader = new CsvReader(fields, names, this.options, 2, !run.keepsBatches)
    this.jobs += 1
    const file = new FileRead(this.file, start, reader, run)
    return new FileJob<R>(`file-${this.jobs}`, file)
  }

  private schema(): Promise<CsvSchema> {
    this.known ??= this.infer()
    return this.known
  }

  private async infer(): Promise<CsvSchema> {
    const sample = new Uint8Array(await this.file.slice(0, SAMPLE_BYTES).arrayBuffer())
    const { fields, start } = inferCsv(sample, this.file.size <= SAMPLE_BYTES, this.options)
    const { types } = this
    for (const name of Object.keys(types))
      if (!fields.some((field) => field.name === name))
        throw new UsageError(`the file has no column ${JSON.stringify(name)}`)
    const typed = fields.map(({ name, type }): Field => {
      const given = Object.hasOwn(types, name) ? types[name] : undefined
      return { name, type: given === undefined ? type : parseType(given) }
    })
    return { fields: typed, start }
  }
}

/** Reads a file into a plan. */
class FileRead {
  constructor(
    private readonly file: Blob,
    private readonly start: number,
    private readonly reader: CsvReader,
    private readonly run: ChainRun,
  ) {}

  async result(jobId: string, options: JobOptions, isCancelled: () => boolean): Promise<Batch> {
    try {
      return await this.computed(jobId, options, isCancelled)
    } finally {
      this.run.close()
    }
  }

  private async computed(
    jobId: string,
    options: JobOptions,
    isCancelled: () => boolean,
  ): Promise<Batch> {
    const { reader } = this
    const total = this.file.size
    const stopIfOver = (): void => {
      options.signal?.throwIfAborted()
      if (isCancelled())
        throw new JobFailed(jobId, `job ${jobId} was cancelled`, { code: 'cancelled' })
    }
    for (let at = this.start; at < total && !this.run.isFull; at += SLICE_BYTES) {
      stopIfOver()
      const slice = await this.file.slice(at, at + SLICE_BYTES).arrayBuffer()
      for (const batch of reader.add(new Uint8Array(slice))) {
        await this.run.add(batch)
        stopIfOver()
      }
      const bytesDone = Math.min(total, at + SLICE_BYTES)
      options.onProgress?.({
        state: 'running',
        done: 0,
        total: 1,
        bytesDone,
        bytesTotal: total,
        rows: 0,
      })
    }
    if (!this.run.isFull) for (const batch of reader.finish()) await this.run.add(batch)
    return this.run.finish()
  }
}

class FileJob<R extends object> implements Job<R> {
  private made: Promise<Batch> | null = null
  private isCancelled = false

  constructor(
    readonly id: string,
    private readonly read: FileRead,
  ) {}

  cancel(): Promise<void> {
    this.isCancelled = true
    return Promise.resolve()
  }

  async wait(options: JobOptions = {}): Promise<void> {
    await this.batch(options)
  }

  async result(options: JobOptions = {}): Promise<Result<R>> {
    const batch = await this.batch(options)
    const columns = batch.fields.map(({ name, type }) => ({ name, type: typeText(type) }))
    return new Result(columns, [...rowsOf<R>(batch)])
  }

  async *rows(options: JobOptions = {}): AsyncGenerator<R> {
    yield* rowsOf<R>(await this.batch(options))
  }

  private batch(options: JobOptions): Promise<Batch> {
    this.made ??= this.compute(options)
    return this.made
  }

  private async compute(options: JobOptions): Promise<Batch> {
    try {
      return await this.read.result(this.id, options, () => this.isCancelled)
    } catch (error) {
      if (!(error instanceof SennitError) || error instanceof JobFailed) throw error
      const { code, hint, details } = error
      throw new JobFailed(this.id, error.message, { code, hint, details })
    }
  }
}

/** The rows of a batch as objects: whole numbers beyond 2^53 are bigints, dates and times text. */
function* rowsOf<R extends object>({ fields, columns, rows }: Batch): Generator<R> {
  for (let row = 0; row < rows; row += 1) {
    const entries = fields.map(({ name, type }, at): [string, unknown] => {
      const column = columns[at]
      return [name, column ? shownValue(valueAt(column, type, row), type) : null]
    })
    yield Object.fromEntries(entries) as R
  }
}
