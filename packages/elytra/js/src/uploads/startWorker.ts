/** Start upload workers: a Web Worker in browsers, otherwise `fetch` on the calling thread. */

import { unreadable } from '../errors.ts'
import type { FromWorker, PutPart, ToWorker } from './messages.ts'
import type { WorkerLike } from './pool.ts'
import { BlobHasher } from './sha256.ts'

/**
 * Start one upload worker, for `new WorkerPool(startUploadWorker, 4)`.
 *
 * Bundlers recognise `new URL('./worker.js', import.meta.url)` and put the worker's code into a file
 * of its own. Node has no `Worker` of this kind: there, parts are hashed and sent by this thread.
 */
export function startUploadWorker(): WorkerLike {
  if (typeof Worker === 'undefined') return new FetchWorker()
  return new Worker(new URL('./worker.js', import.meta.url), { type: 'module' })
}

/** Sends parts with `fetch`, which reports no progress inside a part. */
class FetchWorker implements WorkerLike {
  onmessage: WorkerLike['onmessage'] = null
  onerror: WorkerLike['onerror'] = null
  private readonly hasher = new BlobHasher()
  private readonly sending = new Map<number, AbortController>()

  postMessage(message: ToWorker): void {
    if (message.kind === 'put') void this.put(message)
    else this.sending.get(message.ticket)?.abort()
  }

  terminate(): void {
    for (const control of this.sending.values()) control.abort()
  }

  private async put(part: PutPart): Promise<void> {
    const control = new AbortController()
    this.sending.set(part.ticket, control)
    const answer = await this.send(part, control.signal)
    this.sending.delete(part.ticket)
    // The pool has already settled an aborted part and may have assigned this worker another one.
    if (!control.signal.aborted) this.onmessage?.({ data: answer } as MessageEvent<FromWorker>)
  }

  private async send(part: PutPart, signal: AbortSignal): Promise<FromWorker> {
    const { ticket } = part
    let sha256: string
    try {
      sha256 = await this.hasher.hash(part.body)
    } catch (error) {
      return { kind: 'failed', ticket, status: 400, body: unreadable(error) }
    }
    const headers = {
      ...part.headers,
      'Content-Type': 'application/octet-stream',
      'X-Sha256': sha256,
    }
    try {
      const response = await fetch(part.url, { method: 'PUT', headers, body: part.body, signal })
      const body = await response.text()
      if (response.ok) return { kind: 'stored', ticket, sha256 }
      return { kind: 'failed', ticket, status: response.status, body }
    } catch {
      return { kind: 'failed', ticket, status: 0, body: '' } // no response: the upload retries
    }
  }
}
