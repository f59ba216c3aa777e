/** `Elytra.remote(name)`: the entry point of pipelines. */

import { Pipeline } from '../pipelines/pipeline.ts'
import type { AnyRow } from '../pipelines/types.ts'
import type { SourceJson } from '../plan/json.ts'
import { Http, type NodeOptions } from './http.ts'
import { FileRunner, type FileOptions } from './fileRunner.ts'
import type { NodeJob } from './job.ts'
import { NodeRunner } from './runner.ts'

/** Which version of a dataset: one of these, the newest by default. */
export interface At {
  snapshot?: string
  /** The number of a version, or its tag. */
  version?: number | string
  /** The newest version of then. */
  timestamp?: Date | string
}

/** A node on which pipelines run. */
export class Elytra {
  private static shared = new Elytra()
  private readonly runner: NodeRunner

  constructor(options: NodeOptions = {}) {
    this.runner = new NodeRunner(new Http(options), options.live ?? null)
  }

  /** Set the node of `Elytra.remote`: the page's own origin without a `url`. */
  static configure(options: NodeOptions): void {
    Elytra.shared = new Elytra(options)
  }

  /** Begin a pipeline over a dataset or view of the configured node. */
  static remote<R extends object = AnyRow>(dataset: string, at: At = {}): Pipeline<R> {
    return Elytra.shared.remote<R>(dataset, at)
  }

  /**
   * Begin a pipeline over a CSV file that this page or process has: it is computed here, and the
   * file goes nowhere.
   */
  static file<R extends object = AnyRow>(file: Blob, options: FileOptions = {}): Pipeline<R> {
    return Pipeline.over<R>(new FileRunner(file, options), { dataset: 'file' })
  }

  /** Begin a pipeline over a dataset or view, by its id or name. */
  remote<R extends object = AnyRow>(dataset: string, at: At = {}): Pipeline<R> {
    const { snapshot, version, timestamp } = at
    const source: SourceJson = {
      dataset,
      ...(snapshot !== undefined && { snapshot }),
      ...(version !== undefined && { version }),
      ...(timestamp !== undefined && { timestamp: timeOf(timestamp) }),
    }
    return Pipeline.over<R>(this.runner, source)
  }

  /** The handle of a job that was submitted before. */
  job<R extends object = AnyRow>(id: string): NodeJob<R> {
    return this.runner.job<R>(id)
  }
}

function timeOf(time: Date | string): string {
  return time instanceof Date ? time.toISOString().slice(0, -1) : time
}
