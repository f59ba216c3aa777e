/** Why an upload failed: the node's error, or a network error. */

/** The error document that every route of a node returns. */
export interface ErrorDocument {
  error: string
  code: string
  hint: string | null
  details?: Record<string, unknown>
}

/** An error response of the node, or a request that did not reach it (status 0). */
export class UploadError extends Error {
  readonly code: string
  readonly hint: string | null
  readonly status: number
  readonly details: Record<string, unknown>

  constructor(
    message: string,
    fields: {
      code: string
      status: number
      hint?: string | null
      details?: Record<string, unknown>
    },
  ) {
    super(message)
    this.name = 'UploadError'
    this.code = fields.code
    this.status = fields.status
    this.hint = fields.hint ?? null
    this.details = fields.details ?? {}
  }

  /** Whether the same request may succeed later without any change. */
  get retryable(): boolean {
    return (
      this.status === 0 ||
      this.status === 408 ||
      this.status === 429 ||
      (this.status >= 500 && this.status !== 507)
    )
  }
}

/** Convert an error response to an UploadError; its body need not be an error document. */
export function errorFromResponse(status: number, body: string): UploadError {
  const document = parseErrorDocument(body)
  if (document) return new UploadError(document.error, { ...document, status })
  return new UploadError(`The node answered ${status}.`, {
    code: status >= 500 ? 'unavailable' : 'usage',
    status,
  })
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
    const value: unknown = JSON.parse(body)
    if (typeof value !== 'object' || value === null || !('error' in value)) return null
    const { error, code, hint, details } = value as Record<string, unknown>
    return {
      error: String(error),
      code: typeof code === 'string' ? code : 'internal',
      hint: typeof hint === 'string' ? hint : null,
      details:
        typeof details === 'object' && details !== null ? (details as Record<string, unknown>) : {},
    }
  } catch {
    return null
  }
}
