/**
 * Uploads for browsers. Layering: parts, rate, retry, sha256 (pure) <- session (HTTP), pool and
 * worker (threads) <- startWorker, upload (one file). Nothing else is public.
 */

export { UploadError, type ErrorDocument } from './errors.ts'
export { WorkerPool, type WorkerLike } from './pool.ts'
export { resumeKey, storageResume, type ResumeStore } from './resume.ts'
export { DEFAULT_RETRY, type RetryPolicy } from './retry.ts'
export { UploadApi, type UploadResult, type UploadSession } from './session.ts'
export { sha256Hex } from './sha256.ts'
export { startUploadWorker } from './startWorker.ts'
export { Upload, type UploadOptions, type UploadSnapshot, type UploadState } from './upload.ts'
