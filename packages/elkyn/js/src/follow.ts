/** A stream with a changing token: it is reopened when the server refuses an old token. */

import type { Refused } from './errors.js'
import {
  backoff,
  delay,
  type OpenStream,
  type StreamListener,
  type StreamRequest,
} from './stream.js'

export type TokenSource = string | (() => string | Promise<string>) | undefined

/** Returns the current token; empty for none. */
export async function tokenOf(source: TokenSource): Promise<string> {
  return (typeof source === 'function' ? await source() : source) ?? ''
}

export class Following {
  private current: AbortController | null = null
  private closeStream: () => void = () => undefined
  private token = ''
  private renewed = false

  constructor(
    private readonly streams: OpenStream,
    private readonly source: TokenSource,
    private readonly request: () => Omit<StreamRequest, 'token'>,
    private readonly listener: StreamListener,
  ) {
    void this.open()
  }

  /** Continue with the current token. */
  async renew(): Promise<void> {
    const { current } = this
    const token = await tokenOf(this.source)
    if (current && current === this.current && token !== this.token) void this.open()
  }

  close(): void {
    this.current?.abort()
    this.current = null
    this.closeStream()
  }

  private async open(): Promise<void> {
    this.close()
    const mine = new AbortController()
    this.current = mine
    const token = await this.tokenSoon(mine.signal)
    if (mine.signal.aborted) return
    this.token = token
    this.closeStream = this.streams(
      { ...this.request(), token },
      {
        event: (event) => {
          this.renewed = false
          if (!mine.signal.aborted) this.listener.event(event)
        },
        online: (live) => mine.signal.aborted || this.listener.online(live),
        refused: (error) => void this.refused(error, mine.signal),
      },
    )
  }

  private async refused(error: Refused, ended: AbortSignal): Promise<void> {
    const token = await this.tokenSoon(ended)
    if (ended.aborted) return
    if (error.status === 401 && token !== this.token && !this.renewed) {
      this.renewed = true
      void this.open()
    } else {
      this.close()
      this.listener.refused(error)
    }
  }

  /** The token, once available: creating it may need the network. */
  private async tokenSoon(ended: AbortSignal): Promise<string> {
    for (let failures = 0; !ended.aborted; failures += 1) {
      try {
        return await tokenOf(this.source)
      } catch {
        await delay(backoff(failures), ended)
      }
    }
    return ''
  }
}
