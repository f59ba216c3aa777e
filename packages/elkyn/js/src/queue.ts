/** Writes on their way to a server: in order, one at a time, kept while it cannot be reached. */

import { Closed, Offline } from './errors.js'
import { KeptWrites, type QueueStorage } from './keptWrites.js'
import type { Path } from './paths.js'
import { backoff, delay } from './stream.js'
import type { Json } from './values.js'

/** A write as it is kept; `key` lets the server see a repeated one as the same. */
export interface QueuedWrite {
  key: string
  method: 'PUT' | 'PATCH' | 'DELETE'
  path: Path
  body: Json
}

/** Hears what becomes of writes. */
export interface QueueListener {
  added(write: QueuedWrite): void
  /** The server has carried it out; `position` is its place in the server's log. */
  done(write: QueuedWrite, position: number | null): void
  /** It will not be carried out by this client. */
  failed(write: QueuedWrite, error: Error): void
}

/** Carries one write out; `Offline` means "later", any other error is the answer. */
export type Send = (write: QueuedWrite, signal: AbortSignal) => Promise<number | null>

/** Tries of a write that the server fails at by a fault of its own; others wait behind it. */
const FAULT_TRIES = 5

interface Waiting {
  write: QueuedWrite
  resolve(): void
  reject(error: Error): void
}

export class WriteQueue {
  private readonly waiting: Waiting[] = []
  private readonly closed = new AbortController()
  private readonly kept: KeptWrites | null
  private sending = false
  private wake: () => void = () => undefined

  /**
   * @param name of the server's tree: writes kept under it are sent to it
   */
  constructor(
    private readonly send: Send,
    private readonly listener: QueueListener,
    storage: QueueStorage | null,
    name: string,
  ) {
    this.kept = storage && new KeptWrites(storage, name, (writes) => this.inherit(writes))
  }

  /** Writes that no answer has come for yet, oldest first. */
  get pending(): readonly QueuedWrite[] {
    return this.waiting.map(({ write }) => write)
  }

  /** Queue a write; settles when the server has answered. */
  add(write: QueuedWrite): Promise<void> {
    if (this.closed.signal.aborted) return Promise.reject(new Closed('the client'))
    return new Promise((resolve, reject) => {
      this.kept?.add(write)
      this.waiting.push({ write, resolve, reject })
      this.listener.added(write)
      void this.run()
    })
  }

  /** Try at once: the network is back. */
  retry(): void {
    this.wake()
  }

  /** Stop sending; what waits is rejected, and stays kept when there is a storage. */
  close(): void {
    if (this.closed.signal.aborted) return
    this.closed.abort()
    this.kept?.close()
    for (const { reject } of this.waiting.splice(0)) reject(new Closed('the client'))
  }

  /** Send what others left: whoever waited for the answers is gone. */
  private inherit(writes: QueuedWrite[]): void {
    if (this.closed.signal.aborted) return
    const nobody = { resolve: () => undefined, reject: () => undefined }
    for (const write of writes) {
      this.waiting.push({ write, ...nobody })
      this.listener.added(write)
    }
    queueMicrotask(() => void this.run())
  }

  private async run(): Promise<void> {
    if (this.sending) return
    this.sending = true
    for (let failures = 0; ;) {
      const first = this.waiting[0]
      if (!first || this.closed.signal.aborted) break
      try {
        const position = await this.send(first.write, this.closed.signal)
        failures = 0
        this.settle(first)
        this.listener.done(first.write, position)
        first.resolve()
      } catch (error) {
        if (this.closed.signal.aborted) break
        if (error instanceof Offline && !(error.status === 500 && failures >= FAULT_TRIES)) {
          await this.pause(error.afterMs ?? backoff(failures++))
        } else {
          failures = 0
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
    this.kept?.remove(answered.write)
  }

  private async pause(ms: number): Promise<void> {
    const waking = new AbortController()
    this.wake = () => waking.abort()
    await delay(ms, AbortSignal.any([waking.signal, this.closed.signal]))
    this.wake = () => undefined
  }
}
