/** The queue of writes to a server: in order, one at a time, kept while it is unreachable. */

import { Backoff } from './backoff.ts'
import { Closed, Offline } from './errors.ts'
import { StoredWrites, type QueueStorage } from './storedWrites.ts'
import type { Path } from './paths.ts'
import type { Json } from './values.ts'

/** A stored write; `key` lets the server recognize a retry. */
export interface QueuedWrite {
  key: string
  method: 'PUT' | 'PATCH' | 'DELETE'
  path: Path
  body: Json
}

/** Is notified of the outcome of writes. */
export interface QueueListener {
  added(write: QueuedWrite): void
  /** The server has applied it; `position` is its position in the server's log. */
  done(write: QueuedWrite, position: number | null): void
  /** This client will not send it any more. */
  failed(write: QueuedWrite, error: Error): void
}

/** Sends one write; `Offline` means "retry later", any other error is final. */
export type Send = (write: QueuedWrite, signal: AbortSignal) => Promise<number | null>

/** Attempts of a write that fails with status 500; later writes wait behind it. */
const SERVER_ERROR_ATTEMPTS_MAX = 5

interface Waiting {
  write: QueuedWrite
  resolve(): void
  reject(error: Error): void
}

export class WriteQueue {
  /** Writes in the order of the calls; the first is being sent. It is removed after its response. */
  private readonly waiting: Waiting[] = []
  private readonly closed = new AbortController()
  private readonly stored: StoredWrites | null
  private sending = false
  private readonly backoff = new Backoff(this.closed.signal)

  /**
   * @param name the name of the server's tree: writes stored under it are sent to it
   */
  constructor(
    private readonly send: Send,
    private readonly listener: QueueListener,
    storage: QueueStorage | null,
    name: string,
  ) {
    this.stored = storage && new StoredWrites(storage, name, (writes) => this.inherit(writes))
  }

  /** Writes without a response yet, oldest first. */
  get pending(): readonly QueuedWrite[] {
    return this.waiting.map(({ write }) => write)
  }

  /** Queue a write; settles when the server has responded. */
  add(write: QueuedWrite): Promise<void> {
    if (this.closed.signal.aborted) return Promise.reject(new Closed('the client'))
    return new Promise((resolve, reject) => {
      this.stored?.add(write)
      this.waiting.push({ write, resolve, reject })
      this.listener.added(write)
      void this.run()
    })
  }

  /** Retry at once: the network is back. */
  retry(): void {
    this.backoff.retry()
  }

  /** Stop sending; waiting writes are rejected, and stay stored if there is a storage. */
  close(): void {
    if (this.closed.signal.aborted) return
    this.closed.abort()
    this.stored?.close()
    for (const { reject } of this.waiting.splice(0)) reject(new Closed('the client'))
  }

  /** Send the writes of earlier pages, whose callers are gone. */
  private inherit(writes: QueuedWrite[]): void {
    if (this.closed.signal.aborted) return
    const noCaller = { resolve: () => undefined, reject: () => undefined }
    for (const write of writes) {
      this.waiting.push({ write, ...noCaller })
      this.listener.added(write)
    }
    queueMicrotask(() => void this.run())
  }

  private async run(): Promise<void> {
    if (this.sending) return
    this.sending = true
    for (;;) {
      const first = this.waiting[0]
      if (!first || this.closed.signal.aborted) break
      try {
        const position = await this.send(first.write, this.closed.signal)
        this.backoff.reset()
        this.settle(first)
        this.listener.done(first.write, position)
        first.resolve()
      } catch (error) {
        if (this.closed.signal.aborted) break
        if (error instanceof Offline && !this.isFinal(error)) {
          await this.backoff.wait(error.afterMs ?? this.backoff.nextMs())
        } else {
          this.backoff.reset()
          this.settle(first)
          this.listener.failed(first.write, error as Error)
          first.reject(error as Error)
        }
      }
    }
    this.sending = false
  }

  private settle(answered: Waiting): void {
    if (this.waiting[0] === answered) this.waiting.shift()
    this.stored?.remove(answered.write)
  }

  /** A server error that persists belongs to the write, which must not block all later ones. */
  private isFinal(error: Offline): boolean {
    return error.status === 500 && this.backoff.failures >= SERVER_ERROR_ATTEMPTS_MAX
  }
}
