/** Why a request failed: the node's error, a network error, or a mistake found before any request. */

/** The error document that every route of a node returns. */
export interface ErrorDocument {
  error: string
  code: string
  hint: string | null
  details?: Record<string, unknown>
}

/** The fields of an error besides its message; `status` is 0 where no response was received. */
export interface ErrorFields {
  code: string
  status?: number
  hint?: string | null
  details?: Record<string, unknown>
}

/** An error of the node, of the connection to it, or of a pipeline that cannot be built. */
export class SennitError extends Error {
  readonly code: string
  readonly hint: string | null
  readonly status: number
  readonly details: Record<string, unknown>

  constructor(message: string, fields: ErrorFields) {
    super(message)
    this.name = new.target.name
    this.code = fields.code
    this.status = fields.status ?? 0
    this.hint = fields.hint ?? null
    this.details = fields.details ?? {}
  }
}

/** A mistake in the use of the API: nothing was sent. */
export class UsageError extends SennitError {
  constructor(message: string, hint: string | null = null) {
    super(message, { code: 'usage', hint })
  }
}

/** A function that no expression has the meaning of. */
export class Unsupported extends SennitError {
  constructor(message: string, hint: string | null = null) {
    super(message, { code: 'unsupported', hint })
  }
}

/** A job that failed or was cancelled; `details` names the step and the column where known. */
export class JobFailed extends SennitError {
  constructor(
    readonly jobId: string,
    message: string,
    fields: ErrorFields,
  ) {
    super(message, fields)
  }
}

/** An error response of the node, or a request that did not reach it (status 0). */
export class UploadError extends SennitError {
  /** Whether the same request may succeed later without any change. */
  get retryable(): boolean {
    return (
      this.status === 0 ||
      this.status === 408 ||
      this.status === 429 ||
      (this.status >= 500 && this.status !== 507)
    )
  }

  /** Whether no response was received. */
  get unreachable(): boolean {
    return this.status === 0 && this.code === 'unavailable'
  }
}

/** A file that is not the one which an unfinished upload began with; nothing of it was sent. */
export class FileMismatch extends UploadError {
  constructor(
    readonly expected: string,
    readonly found: string,
    readonly differences: readonly string[],
  ) {
    super(`${found} is not the file that this upload began with: ${differences.join('; ')}.`, {
      code: 'file-mismatch',
      status: 409,
      hint: `Choose the unchanged ${expected}, or discard the upload and send the file anew.`,
    })
  }
}

/** Convert an error response to an UploadError; its body need not be an error document. */
export function errorFromResponse(status: number, body: string): UploadError {
  return new UploadError(...describeResponse(status, body))
}

/** The message and the fields of an error response. */
export function describeResponse(status: number, body: string): [string, ErrorFields] {
  const document = parseErrorDocument(body)
  if (document) return [document.error, { ...document, status }]
  return [`The node answered ${status}.`, { code: status >= 500 ? 'unavailable' : 'usage', status }]
}

/** The error document of a part whose bytes could not be read from disk. */
export function unreadable(reason: unknown): string {
  return JSON.stringify({
    error: `Reading the file failed: ${String(reason)}`,
    code: 'bad-input',
    hint: 'Choose the file again.',
  })
}

function parseErrorDocument(body: string): ErrorDocument | null {
  try {
    return readErrorDocument(JSON.parse(body))
  } catch {
    return null
  }
}

/** The error document in a value, or null if it is none. */
export function readErrorDocument(value: unknown): ErrorDocument | null {
  if (typeof value !== 'object' || value === null || !('error' in value)) return null
  const { error, code, hint, details } = value as Record<string, unknown>
  return {
    error: String(error),
    code: typeof code === 'string' ? code : 'internal',
    hint: typeof hint === 'string' ? hint : null,
    details:
      typeof details === 'object' && details !== null ? (details as Record<string, unknown>) : {},
  }
}
