/** The HTTP requests of an upload: start, look up, complete, abort. */

import { UploadError, errorFromResponse } from '../errors.ts'

/** The node's record of an upload. */
export interface UploadSession {
  uploadId: string
  partBytes: number
  have: number[]
}

/** A completed upload: the new dataset, and the job that ingests it. */
export interface UploadResult {
  datasetId: string
  jobId: string
}

/** The body of `POST /api/start-upload`. */
export interface StartRequest {
  name: string
  size: number
  partBytes?: number
  mode?: 'create' | 'replace' | 'append' | 'upsert'
  options?: Record<string, unknown>
}

/** A client of one node; `baseUrl` is empty for the page's own origin. */
export class UploadApi {
  constructor(
    readonly baseUrl: string = '',
    readonly headers: Record<string, string> = {},
    private readonly fetcher: typeof fetch = (...request) => fetch(...request),
  ) {}

  /** The URL of part `index`. */
  partUrl(uploadId: string, index: number): string {
    return `${this.baseUrl}/api/uploads/${uploadId}/parts/${index}`
  }

  async start(request: StartRequest, signal?: AbortSignal): Promise<UploadSession> {
    return (await this.call('POST', '/api/start-upload', request, signal)) as UploadSession
  }

  /** The upload's current state, or null if the node does not have it or it is no longer open. */
  async find(uploadId: string, size: number, signal?: AbortSignal): Promise<UploadSession | null> {
    try {
      const found = (await this.call(
        'GET',
        `/api/uploads/${uploadId}`,
        undefined,
        signal,
      )) as FoundUpload
      const open = found.state === 'receiving' || found.state === 'sealed'
      if (!open || found.size !== size) return null
      return { uploadId, partBytes: found.partBytes, have: found.have }
    } catch (error) {
      if (error instanceof UploadError && error.status === 404) return null
      throw error
    }
  }

  async complete(uploadId: string, signal?: AbortSignal): Promise<UploadResult> {
    return (await this.call(
      'POST',
      `/api/uploads/${uploadId}/complete`,
      undefined,
      signal,
    )) as UploadResult
  }

  async abort(uploadId: string): Promise<void> {
    await this.call('DELETE', `/api/uploads/${uploadId}`)
  }

  private async call(
    method: string,
    path: string,
    body?: unknown,
    signal?: AbortSignal,
  ): Promise<unknown> {
    const headers =
      body === undefined ? this.headers : { ...this.headers, 'Content-Type': 'application/json' }
    const response = await this.reach(path, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ?? null,
    })
    const text = await response.text()
    if (!response.ok) throw errorFromResponse(response.status, text)
    return text ? JSON.parse(text) : null
  }

  private async reach(path: string, init: RequestInit): Promise<Response> {
    try {
      return await this.fetcher(this.baseUrl + path, init)
    } catch (error) {
      if (error instanceof DOMException && error.name === 'AbortError') throw error
      throw new UploadError('The node could not be reached.', {
        code: 'unavailable',
        status: 0,
        hint: 'Is it running? Check with `platform status`.',
      })
    }
  }
}

interface FoundUpload {
  size: number | null
  state: string
  partBytes: number
  have: number[]
}
