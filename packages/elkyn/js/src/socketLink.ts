/** One WebSocket of the realtime protocol, version 5: frames, numbered requests, the token. */

import { Refused } from './errors.ts'
import type { StreamRequest } from './stream.ts'
import type { Json } from './values.ts'

/** Messages that the server sends unrequested: `d` set, `m` merge, `c` a listen was revoked. */
export interface Push {
  action: string
  path: string
  data: Json
  /** The position of the event. */
  id: string | null
}

/** Where to resume: the last delivered event, and the proof that the server has it. */
export interface Delivered {
  i: string
  m: string
}

export interface LinkListener {
  /** Requests may be sent. */
  opened(): void
  pushed(push: Push): void
  /** All events up to this position were sent on this connection. */
  delivered(until: Delivered): void
  /** The connection is closed; with an error if reconnecting is pointless. */
  ended(refused: Refused | null): void
}

interface Reply {
  s: string
  d: Json
}

const PING_MS = 30_000
const SOCKET_SILENCE_MS = 75_000
/** The time within which a connection must respond after the network was lost. */
const PROBE_MS = 5000
const COUNT_CHARS_MAX = 6

/** The HTTP status for the code of a refusal. */
const STATUSES: Record<string, number> = { permission_denied: 401, unknown_namespace: 404 }

export class SocketLink {
  private readonly socket: WebSocket
  private readonly replies = new Map<number, (reply: Reply) => void>()
  private readonly heart: ReturnType<typeof setInterval>
  private last = 0
  private missing = 0
  private frames: string[] = []
  private heardAt = Date.now()
  private isOver = false

  constructor(
    request: StreamRequest,
    private readonly listener: LinkListener,
  ) {
    const url = new URL(`${request.base}/.ws`)
    url.protocol = url.protocol.replace('http', 'ws')
    url.searchParams.set('v', '5')
    if (request.namespace) url.searchParams.set('ns', request.namespace)
    this.socket = new WebSocket(url)
    this.socket.onmessage = ({ data }) => this.receive(String(data), request.token)
    this.socket.onclose = () => this.end(null)
    this.socket.onerror = () => this.end(null) // some Node versions send no close event for a socket that never opened
    this.heart = setInterval(() => this.beat(), PING_MS)
    globalThis.addEventListener?.('online', this.probe)
  }

  /** Send a request; `answered` gets the error (null for "ok") and the data of the response. */
  send(action: string, body: Json, answered: (error: Refused | null, data: Json) => void): void {
    const number = (this.last += 1)
    this.replies.set(number, ({ s, d }) =>
      answered(s === 'ok' ? null : new Refused(statusOf(s), typeof d === 'string' && d ? d : s), d),
    )
    this.say({ t: 'd', d: { r: number, a: action, b: body } })
  }

  /** Close without notifying the listener. */
  close(): void {
    this.isOver = true
    clearInterval(this.heart)
    globalThis.removeEventListener?.('online', this.probe)
    this.socket.close()
  }

  private end(refused: Refused | null): void {
    if (this.isOver) return
    this.close()
    this.listener.ended(refused)
  }

  private say(message: Json): void {
    if (this.socket.readyState === 1) this.socket.send(JSON.stringify(message))
  }

  private beat(): void {
    if (Date.now() - this.heardAt > SOCKET_SILENCE_MS) this.end(null)
    else this.ping()
  }

  private ping(): void {
    this.say({ t: 'c', d: { t: 'p', d: {} } })
  }

  private readonly probe = () => {
    const before = this.heardAt
    this.ping()
    setTimeout(() => this.heardAt === before && this.end(null), PROBE_MS)
  }

  /** A message longer than a frame arrives as the number of its frames and then the frames. */
  private receive(frame: string, token: string): void {
    if (this.isOver) return
    this.heardAt = Date.now()
    if (this.missing === 0) {
      if (frame.length <= COUNT_CHARS_MAX && /^\d+$/.test(frame)) this.missing = Number(frame)
      else this.handle(JSON.parse(frame) as Message, token)
      return
    }
    this.frames.push(frame)
    this.missing -= 1
    if (this.missing > 0) return
    const text = this.frames.join('')
    this.frames = []
    this.handle(JSON.parse(text) as Message, token)
  }

  private handle({ t, d }: Message, token: string): void {
    if (t === 'c') this.control(d, token)
    else if (d.r !== undefined) {
      const answered = this.replies.get(d.r)
      this.replies.delete(d.r)
      answered?.(d.b as unknown as Reply)
    } else if (d.a === 'ac') {
      const reason = String((d.b as { d?: Json }).d ?? '')
      this.end(new Refused(401, `credentials were revoked: ${reason}`))
    } else if (d.a !== 'sd') {
      // `sd` is a text for logs: the response of each request has the same reason.
      const { p, d: data, i } = d.b as { p: string; d?: Json; i?: string }
      this.listener.pushed({ action: d.a ?? '', path: p, data: data ?? null, id: i ?? null })
    }
  }

  private control(control: Message['d'], token: string): void {
    if (control.t === 'h' && token === '') this.listener.opened()
    else if (control.t === 'h') {
      this.send('auth', { cred: token }, (error) => {
        if (error === null) this.listener.opened()
        else this.end(new Refused(401, error.message))
      })
    } else if (control.t === 's') this.end(new Refused(404, String(control.d)))
    else if (control.t === 'o' && isDelivered(control.d)) this.listener.delivered(control.d)
    else if (control.t === 'r' || control.t === 'e') this.end(null)
  }
}

interface Message {
  t: string
  d: { t?: string; d?: Json; r?: number; a?: string; b?: Json }
}

/** Whether the server has sent the delivered position: an older server does not. */
export function isDelivered(data: unknown): data is Delivered & { [key: string]: Json } {
  return typeof data === 'object' && data !== null && 'i' in data && 'm' in data
}

function statusOf(status: string): number {
  return STATUSES[status] ?? 400
}
