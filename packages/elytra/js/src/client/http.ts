/** Requests to a node. */

import { describeResponse, SennitError } from '../errors.ts'
import type { LiveTree } from './follow.ts'

/** Where a node is, and who asks. */
export interface NodeOptions {
  /** The node's address; the page's own origin by default. */
  url?: string
  token?: string
  fetch?: typeof fetch
  /**
   * Events of the node's tree, `new LiveValues(url, { namespace: 'sys', token })` of
   * `@sennit/elkyn/live`: jobs are followed by them, and not by repeated requests.
   */
  live?: LiveTree
}

export interface RequestOptions {
  method?: string
  body?: unknown
  accept?: string
  signal?: AbortSignal
}

/** Sends requests to one node. */
export class Http {
  private readonly url: string
  private readonly headers: Record<string, string>
  private readonly fetcher: typeof fetch

  constructor({ url = '', token, fetch: fetcher }: NodeOptions) {
    this.url = url.replace(/\/+$/, '')
    this.headers = token === undefined ? {} : { Authorization: `Bearer ${token}` }
    this.fetcher = fetcher ?? ((...request) => fetch(...request))
  }

  /**
   * The response of the node.
   *
   * @throws SennitError with the node's code, message and hint; status 0 if it was not reached.
   */
  async send(path: string, options: RequestOptions = {}): Promise<Response> {
    const { method = 'GET', body, accept = 'application/json', signal } = options
    const headers: Record<string, string> = { ...this.headers, Accept: accept }
    if (body !== undefined) headers['Content-Type'] = 'application/json'
    const response = await this.reach(path, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ?? null,
    })
    if (!response.ok)
      throw new SennitError(...describeResponse(response.status, await response.text()))
    return response
  }

  async json<T>(path: string, options: RequestOptions = {}): Promise<T> {
    return (await (await this.send(path, options)).json()) as T
  }

  private async reach(path: string, init: RequestInit): Promise<Response> {
    try {
      return await this.fetcher(this.url + path, init)
    } catch (error) {
      if (init.signal?.aborted) throw error
      throw new SennitError('The node could not be reached.', {
        code: 'unavailable',
        hint: 'Is it running? Check with `platform status`.',
      })
    }
  }
}
