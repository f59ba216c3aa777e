/**
 * Pipelines and uploads for browsers and Node.
 *
 * Layering: plan (expressions, JSON) <- functions (translated to expressions) <- pipelines
 *           <- client (HTTP, files); plan <- engine (computes plans) <- client; uploads stand apart. Nothing else is public.
 */

export { Elytra, type At } from './client/elytra.ts'
export type { NodeOptions } from './client/http.ts'
export type { LiveTree } from './client/follow.ts'
export type { FileOptions } from './client/fileRunner.ts'
export {
  NodeJob,
  type Job,
  type JobCheck,
  type JobOptions,
  type JobProgress,
} from './client/job.ts'
export { Result, type ResultColumn } from './client/result.ts'
export {
  FileMismatch,
  JobFailed,
  SennitError,
  Unsupported,
  UploadError,
  UsageError,
  type ErrorDocument,
} from './errors.ts'
export type { Scope } from './functions/translate.ts'
export { Groups, Pipeline } from './pipelines/pipeline.ts'
export type { AnyRow, Cell, Cells, Formula, Key } from './pipelines/types.ts'
export {
  denseRank,
  firstValue,
  lag,
  lastValue,
  lead,
  ntile,
  rank,
  rowNumber,
} from './pipelines/window.ts'
export { canonicalJson, planHash } from './plan/canonical.ts'
export {
  Agg,
  call,
  coalesce,
  col,
  concat,
  count,
  Expr,
  greatest,
  least,
  lit,
  SortKey,
  when,
  WindowCall,
  type Operand,
} from './plan/expr.ts'
export type { ExprJson, PlanJson, PlanNode } from './plan/json.ts'
export { opaque, Opaque, type OpaqueOptions, type Returns } from './sandbox/opaque.ts'
export type { Connectivity } from './uploads/connectivity.ts'
export type { Fingerprint } from './uploads/fingerprint.ts'
export { indexedDbRecords } from './uploads/indexedDbRecords.ts'
export { canPickFiles, droppedFiles, pickFiles, type PickedFile } from './uploads/picking.ts'
export { WorkerPool, type WorkerLike } from './uploads/pool.ts'
export { memoryRecords, type UploadRecord, type UploadRecords } from './uploads/records.ts'
export { DEFAULT_RETRY, type RetryPolicy } from './uploads/retry.ts'
export { UploadApi, type UploadResult, type UploadSession } from './uploads/session.ts'
export { sha256Hex } from './uploads/sha256.ts'
export { startUploadWorker } from './uploads/startWorker.ts'
export {
  StreamUploader,
  type StreamUploaderOptions,
  type UnfinishedUpload,
  type UploadFileOptions,
} from './uploads/streamUploader.ts'
export {
  Upload,
  type UploadMemory,
  type UploadOptions,
  type UploadSnapshot,
  type UploadState,
} from './uploads/upload.ts'
export type { WorkerControls } from './worker/outerMessages.ts'
export { RemoteWorker, type WorkerOptions, type WorkerState } from './worker/remoteWorker.ts'
export { defaultThreads } from './worker/threadCount.ts'
export { TabWorker, type TabWorkerOptions } from './worker/tabWorker.ts'
