/** Writes on their way to a server: in order, one at a time, kept while it cannot be reached. */

import { Closed, Offline } from './errors'
import type { Path } from './paths'
import { backoff, delay } from './stream'
import type { Json } from './values'

/** A write as it is kept; `key` lets the server see a repeated one as the same. */
export interface QueuedWrite {
  key: string
  method: 'PUT' | 'PATCH' | 'POST' | 'DELETE'
  path: Path
  body: Json
}

/** Where waiting writes are kept over restarts; `localStorage` fits, or nothing. */
export interface QueueStorage {
  getItem(name: string): string | null
  setItem(name: string, text: string): void
}

interface Waiting {
  write: QueuedWrite
  resolve(answer: Json): void
  reject(error: Error): void
}

export class WriteQueue {
  private readonly waiting: Waiting[] = []
  private readonly closed = new AbortController()
  private sending = false
  private wake: () => void = () => undefined

  /**
   * @param send carries one write out; `Offline` means "later", any other error is the answer
   * @param changed is called when the list of waiting writes has changed
   */
  constructor(
    private readonly send: (write: QueuedWrite, signal: AbortSignal) => Promise<Json>,
    private readonly changed: () => void,
    private readonly storage: QueueStorage | null = null,
    private readonly name = 'elkyn-writes',
  ) {
    for (const write of this.stored()) this.waiting.push({ write, ...nobody })
    if (this.waiting.length) void this.run()
  }

  /** Writes that no answer has come for yet, oldest first. */
  get pending(): readonly QueuedWrite[] {
    return this.waiting.map(({ write }) => write)
  }

  /** Queue a write; settles with the server's answer. */
  add(write: QueuedWrite): Promise<Json> {
    if (this.closed.signal.aborted) return Promise.reject(new Closed('the client'))
    return new Promise((resolve, reject) => {
      this.waiting.push({ write, resolve, reject })
      this.keep()
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
    for (const { reject } of this.waiting.splice(0)) reject(new Closed('the client'))
  }

  private async run(): Promise<void> {
    if (this.sending) return
    this.sending = true
    for (let failures = 0; this.waiting.length && !this.closed.signal.aborted;) {
      const first = this.waiting[0]
      if (!first) break
      try {
        const answer = await this.send(first.write, this.closed.signal)
        failures = 0
        this.settle(first, () => first.resolve(answer))
      } catch (error) {
        if (this.closed.signal.aborted) break
        if (error instanceof Offline) await this.pause(backoff(failures++))
        else this.settle(first, () => first.reject(error as Error))
      }
    }
    this.sending = false
  }

  private settle(done: Waiting, tell: () => void): void {
    if (this.waiting[0] === done) this.waiting.shift()
    this.keep()
    tell()
  }

  private async pause(ms: number): Promise<void> {
    const waking = new AbortController()
    this.wake = () => waking.abort()
    await delay(ms, AbortSignal.any([waking.signal, this.closed.signal]))
    this.wake = () => undefined
  }

  private keep(): void {
    this.storage?.setItem(this.name, JSON.stringify(this.pending))
    this.changed()
  }

  private stored(): QueuedWrite[] {
    const text = this.storage?.getItem(this.name)
    return text ? (JSON.parse(text) as QueuedWrite[]) : []
  }
}

/** The page that made a kept write is gone, and so is whoever waited for its answer. */
const nobody = { resolve: () => undefined, reject: () => undefined }
