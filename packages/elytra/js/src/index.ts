/**
 * Uploads for browsers. Layering: parts, rate, retry, sha256 (pure) <- session (HTTP), pool and
 * worker (threads) <- upload (one file). Nothing else is public.
 */

export { UploadError, type ErrorDocument } from './errors'
export { WorkerPool, type WorkerLike } from './pool'
export { resumeKey, storageResume, type ResumeStore } from './resume'
export { DEFAULT_RETRY, type RetryPolicy } from './retry'
export { UploadApi, type UploadResult, type UploadSession } from './session'
export { sha256, sha256Hex } from './sha256'
export { Upload, type UploadOptions, type UploadSnapshot, type UploadState } from './upload'
