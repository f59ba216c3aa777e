/** One Elkyn event stream that stays open: reconnects with backoff and notices silence. */

import type { StreamStatus } from './protocol'
import { applyEvent, type Tree, type TreeEvent } from './tree'

/** Silence longer than two keep-alives of the node means that the connection is gone. */
const SILENCE_MS = 60_000
const RETRY_MS = [1_000, 2_000, 4_000, 8_000, 10_000]

/** Delay before the next attempt after so many failures in a row. */
export function reconnectDelay(failures: number): number {
  return RETRY_MS[Math.min(failures, RETRY_MS.length) - 1] ?? RETRY_MS[0]!
}

/** Parse the data of a `put` or `patch` event; null when it is neither. */
export function parseEvent(type: string, data: string): TreeEvent | null {
  if (type !== 'put' && type !== 'patch') return null
  try {
    const value = JSON.parse(data) as { path?: unknown; data?: unknown } | null
    return value && typeof value.path === 'string'
      ? { type, path: value.path, data: value.data ?? null }
      : null
  } catch {
    return null
  }
}

/** Watches `/path.json` of the platform's namespace and keeps the current value. */
export class LiveStream {
  tree: Tree = null
  status: StreamStatus = { state: 'connecting' }
  private source: EventSource | null = null
  private failures = 0
  private timer: ReturnType<typeof setTimeout> | undefined
  private received = false

  constructor(
    readonly path: string,
    private readonly onEvent: (event: TreeEvent) => void,
    private readonly onStatus: (status: StreamStatus) => void,
  ) {
    this.open()
  }

  /** Whether `tree` is the node's answer, not just the empty start. */
  get ready(): boolean {
    return this.received
  }

  /** Try again now instead of at the end of the delay. */
  retryNow(): void {
    if (this.status.state !== 'lost') return
    clearTimeout(this.timer)
    this.open()
  }

  close(): void {
    clearTimeout(this.timer)
    this.source?.close()
    this.source = null
  }

  private open(): void {
    this.close()
    const source = new EventSource(`${this.path}.json?ns=sys`)
    this.source = source
    const alive = () => {
      clearTimeout(this.timer)
      this.timer = setTimeout(() => void this.lose(), SILENCE_MS)
    }
    source.onopen = alive
    source.addEventListener('keep-alive', alive)
    for (const type of ['put', 'patch']) {
      source.addEventListener(type, (message) => {
        alive()
        const event = parseEvent(type, (message as MessageEvent<string>).data)
        if (event) this.accept(event)
      })
    }
    source.addEventListener('auth_revoked', () => void this.lose())
    source.addEventListener('cancel', () => void this.lose())
    source.onerror = () => void this.lose()
  }

  private accept(event: TreeEvent): void {
    this.failures = 0
    this.received = true
    this.tree = applyEvent(this.tree, event)
    if (this.status.state !== 'live') this.enter({ state: 'live' })
    this.onEvent(event)
  }

  private async lose(): Promise<void> {
    if (!this.source) return
    this.close()
    this.failures += 1
    const delayMs = reconnectDelay(this.failures)
    this.timer = setTimeout(() => this.open(), delayMs)
    this.enter({ state: 'lost', retryAtMs: Date.now() + delayMs, reason: await this.askWhy() })
  }

  /** An EventSource does not report why it failed; a plain request does. */
  private async askWhy(): Promise<'unreachable' | 'unauthenticated' | 'refused'> {
    try {
      const response = await fetch(`${this.path}.json?ns=sys&shallow=true`, {
        signal: AbortSignal.timeout(3_000),
      })
      if (response.status === 401) return 'unauthenticated'
      return response.status === 403 ? 'refused' : 'unreachable'
    } catch {
      return 'unreachable'
    }
  }

  private enter(status: StreamStatus): void {
    this.status = status
    this.onStatus(status)
  }
}
