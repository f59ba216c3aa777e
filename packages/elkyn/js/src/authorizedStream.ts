/** A stream with a changing token: it is reopened when the server refuses an old token. */

import { Backoff } from './backoff.ts'
import type { Refused } from './errors.ts'
import type { OpenStream, StreamHandle, StreamListener, StreamRequest } from './stream.ts'

export type TokenSource = string | (() => string | Promise<string>) | undefined

/** Returns the current token; empty for none. */
export async function tokenOf(source: TokenSource): Promise<string> {
  return (typeof source === 'function' ? await source() : source) ?? ''
}

export class AuthorizedStream {
  /** Identifies the latest attempt; callbacks of earlier ones see it aborted and do nothing. */
  private current: AbortController | null = null
  private stream: StreamHandle | null = null
  private token = ''
  /** True after a reopening until the next event: a second refusal in a row is final. */
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

  /** Reconnect now, if the stream waits for its next attempt. */
  retry(): void {
    this.stream?.retry()
  }

  close(): void {
    this.current?.abort()
    this.current = null
    this.stream?.close()
    this.stream = null
  }

  private async open(): Promise<void> {
    this.close()
    const mine = new AbortController()
    this.current = mine
    const token = await this.tokenSoon(mine.signal)
    if (mine.signal.aborted) return
    this.token = token
    this.stream = this.streams(
      { ...this.request(), token },
      {
        event: (event) => {
          this.renewed = false
          if (!mine.signal.aborted) this.listener.event(event)
        },
        connection: (connection) => mine.signal.aborted || this.listener.connection(connection),
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
    const backoff = new Backoff(ended)
    while (!ended.aborted) {
      try {
        return await tokenOf(this.source)
      } catch {
        await backoff.wait(backoff.nextMs())
      }
    }
    return ''
  }
}
