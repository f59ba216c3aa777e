/** A fixed set of upload workers, shared by all uploads of a page; parts queue in FIFO order. */

import { UploadError, errorFromResponse } from '../errors.ts'
import type { FromWorker, PutPart, ToWorker } from './messages.ts'

/** The part of `Worker` that a pool uses. */
export interface WorkerLike {
  postMessage(message: ToWorker): void
  terminate(): void
  onmessage: ((event: MessageEvent<FromWorker>) => void) | null
  onerror: ((event: ErrorEvent) => void) | null
}

/** One part to send. */
export interface PartRequest {
  url: string
  body: Blob
  headers?: Record<string, string>
  signal?: AbortSignal
  onSent?: (bytes: number) => void
}

interface Ticket {
  message: PutPart
  request: PartRequest
  resolve: (sha256: string) => void
  reject: (reason: unknown) => void
  onAbort: () => void
}

/** Sends parts through at most `size` workers; `createWorker` starts one running `@sennit/elytra/worker`. */
export class WorkerPool {
  /** Parts without a worker, oldest first. */
  private readonly waiting: Ticket[] = []
  /** Every worker is either here or in `busy`; workers start when a part needs one. */
  private readonly idle: WorkerLike[] = []
  private readonly busy = new Map<WorkerLike, Ticket>()
  private nextTicket = 0
  private closed = false

  constructor(
    private readonly createWorker: () => WorkerLike,
    readonly size: number,
  ) {}

  /** Send one part; resolves to its SHA-256 once the node has stored it. Rejects with UploadError or AbortError. */
  send(request: PartRequest): Promise<string> {
    return new Promise((resolve, reject) => {
      if (this.closed)
        return reject(
          new UploadError('The upload workers are closed.', { code: 'closed', status: 400 }),
        )
      if (request.signal?.aborted) return reject(abortError())
      const message: PutPart = {
        kind: 'put',
        ticket: this.nextTicket++,
        url: request.url,
        body: request.body,
        headers: request.headers ?? {},
      }
      const ticket: Ticket = {
        message,
        request,
        resolve,
        reject,
        onAbort: () => this.abort(ticket),
      }
      request.signal?.addEventListener('abort', ticket.onAbort, { once: true })
      this.waiting.push(ticket)
      this.dispatch()
    })
  }

  /** Terminate all workers; parts being sent are rejected. */
  close(): void {
    this.closed = true
    const left = [...this.waiting.splice(0), ...this.busy.values()]
    for (const worker of [...this.idle.splice(0), ...this.busy.keys()]) worker.terminate()
    this.busy.clear()
    for (const ticket of left) this.settle(ticket, () => ticket.reject(abortError()))
  }

  private dispatch(): void {
    while (this.waiting.length > 0) {
      const worker = this.idle.pop() ?? this.start()
      if (!worker) return
      const ticket = this.waiting.shift()!
      this.busy.set(worker, ticket)
      worker.postMessage(ticket.message)
    }
  }

  private start(): WorkerLike | null {
    if (this.busy.size + this.idle.length >= this.size) return null
    const worker = this.createWorker()
    worker.onmessage = ({ data }) => this.receive(worker, data)
    worker.onerror = (event) => this.lose(worker, event.message)
    return worker
  }

  private receive(worker: WorkerLike, message: FromWorker): void {
    const ticket = this.busy.get(worker)
    // An aborted part may still report; its worker may have the next part by then.
    if (!ticket || ticket.message.ticket !== message.ticket) return
    if (message.kind === 'sent') return ticket.request.onSent?.(message.bytes)
    this.free(worker)
    if (message.kind === 'stored') this.settle(ticket, () => ticket.resolve(message.sha256))
    else this.settle(ticket, () => ticket.reject(refusal(message.status, message.body)))
    this.dispatch()
  }

  private lose(worker: WorkerLike, reason: string): void {
    const ticket = this.busy.get(worker)
    worker.terminate()
    this.busy.delete(worker)
    const error = new UploadError(
      `An upload worker stopped: ${reason || 'it could not be loaded'}.`,
      { code: 'worker-lost', status: 0 },
    )
    if (ticket) this.settle(ticket, () => ticket.reject(error))
    this.dispatch()
  }

  private abort(ticket: Ticket): void {
    const position = this.waiting.indexOf(ticket)
    if (position >= 0) this.waiting.splice(position, 1)
    for (const [worker, current] of this.busy) {
      if (current !== ticket) continue
      worker.postMessage({ kind: 'abort', ticket: ticket.message.ticket })
      this.free(worker)
    }
    this.settle(ticket, () => ticket.reject(abortError()))
    this.dispatch()
  }

  private free(worker: WorkerLike): void {
    this.busy.delete(worker)
    this.idle.push(worker)
  }

  private settle(ticket: Ticket, how: () => void): void {
    ticket.request.signal?.removeEventListener('abort', ticket.onAbort)
    how()
  }
}

function refusal(status: number, body: string): UploadError {
  if (status !== 0) return errorFromResponse(status, body)
  return new UploadError('The node could not be reached.', {
    code: 'unavailable',
    status: 0,
    hint: 'The part is retried automatically.',
  })
}

/** The rejection reason of an aborted part. */
export function abortError(): DOMException {
  return new DOMException('The part was not sent.', 'AbortError')
}
