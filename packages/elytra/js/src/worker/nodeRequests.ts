/** The requests of a worker: inputs in ranges, and long results. */

import { describeResponse, SennitError } from '../errors.ts'
import { sha256Hex } from '../uploads/sha256.ts'
import type { InputBuffers } from './inputBuffers.ts'
import type { InputCache } from './inputCache.ts'
import type { Task } from './messages.ts'

const RANGE_BYTES = 4 << 20
/** Between two reports of a body that arrives: often enough for the lease of a slow connection. */
const REPORT_BYTES = 256 << 10

/** Requests to one node with the token of one worker. */
export class NodeRequests {
  constructor(
    private readonly url: string,
    private readonly token: string,
    private readonly cache: InputCache | null,
    private readonly buffers: InputBuffers,
  ) {}

  /**
   * The whole input of a task, from the cache or from the node.
   *
   * @param onBytes hears how many bytes were received.
   * @throws SennitError if the bytes are not those that the task names.
   */
  async input(
    task: Task,
    signal: AbortSignal,
    onBytes: (bytes: number) => void,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const kept = await this.cache?.get(task)
    if (kept && (await sha256Hex(kept)) === task.inputSha256) return kept
    const input = await this.fetched(task, signal, onBytes)
    if ((await sha256Hex(input)) !== task.inputSha256)
      throw new SennitError('the input is damaged', { code: 'unavailable' })
    await this.cache?.put(task, input)
    return input
  }

  /** In ranges: a long download renews the lease. */
  private async fetched(
    task: Task,
    signal: AbortSignal,
    onBytes: (bytes: number) => void,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const input = this.buffers.allocate(task.inputBytes)
    for (let at = 0; at < input.length; at += RANGE_BYTES) {
      const range = input.subarray(at, Math.min(input.length, at + RANGE_BYTES))
      const headers = { Range: `bytes=${at}-${at + range.length - 1}` }
      const response = await this.request(task.input, { headers, signal })
      await fill(range, response, (bytes) => onBytes(at + bytes))
    }
    return input
  }

  /** Send a result that is too long for a message. */
  async upload(
    task: Task,
    data: Uint8Array<ArrayBuffer>,
    sha256: string,
    signal: AbortSignal,
  ): Promise<void> {
    const headers = { 'X-Sha256': sha256 }
    await this.request(task.upload, { method: 'PUT', body: data, headers, signal })
  }

  /** Whether the node refuses the token; a WebSocket does not say why it could not be opened. */
  async isRefused(): Promise<boolean> {
    try {
      const headers = { Authorization: `Bearer ${this.token}` }
      const { status } = await fetch(`${this.url}/api/workers/inputs/none`, { headers })
      return status === 401 || status === 403
    } catch {
      return false // the node is not up
    }
  }

  private async request(path: string, init: RequestInit): Promise<Response> {
    const headers = { ...init.headers, Authorization: `Bearer ${this.token}` }
    const response = await fetch(this.url + path, { ...init, headers }).catch((error: unknown) => {
      // The connection, not the task: a failure of another kind would count as this worker's fault.
      throw new SennitError(String(error), { code: 'unavailable' })
    })
    if (!response.ok)
      throw new SennitError(...describeResponse(response.status, await response.text()))
    return response
  }
}

/** Fill `bytes` with a body of their length, piece by piece as it arrives: no other copy of it is made. */
async function fill(
  bytes: Uint8Array<ArrayBuffer>,
  response: Response,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const reader = response.body?.getReader()
  let at = 0
  let reported = 0
  try {
    for (let piece = await reader?.read(); piece?.value; piece = await reader?.read()) {
      if (at + piece.value.length > bytes.length) throw new Error('it is longer than its range')
      bytes.set(piece.value, at)
      at += piece.value.length
      if (at - reported < REPORT_BYTES && at < bytes.length) continue
      reported = at
      onBytes(at)
    }
    if (at < bytes.length) throw new Error(`it ended after ${at} of ${bytes.length} bytes`)
  } catch (error) {
    void reader?.cancel().catch(() => undefined)
    throw new SennitError(`a part of the input: ${String(error)}`, { code: 'unavailable' })
  }
}
