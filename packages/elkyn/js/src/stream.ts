/**
 * Event streams of a server (`text/event-stream` with Firebase's events), kept alive.
 *
 * A stream reconnects automatically and resumes after the last event it received, so that a
 * listener misses no event; where the server cannot resume, it sends the whole value again.
 */

import { Backoff } from './backoff.ts'
import { Offline, Refused } from './errors.ts'
import type { Path } from './paths.ts'
import { type Json, present, type Stored } from './values.ts'

/** One event: `put` replaces what is at `path`, `patch` replaces several children of it. */
export interface StreamEvent {
  type: 'put' | 'patch'
  path: string
  data: Json
  /** The position of the event in the server's log. */
  id: string | null
}

/** The state of a stream's connection; `retryAtMs` is the time of the next attempt. */
export type Connection =
  { state: 'connecting' } | { state: 'online' } | { state: 'offline'; retryAtMs: number }

export interface StreamListener {
  event(event: StreamEvent): void
  /** The connection was opened or lost. */
  connection(connection: Connection): void
  /** The server refuses the stream; there will be no more events. */
  refused(error: Refused): void
}

export interface StreamRequest {
  /** The URL of the server, without a trailing slash. */
  base: string
  path: Path
  namespace: string | null
  /** Empty for none. */
  token: string
  /** Id of the last received event. */
  lastEventId: string | null
}

/** The event that replaces the whole value of a stream. */
export function wholeValue(value: Stored): StreamEvent {
  return { type: 'put', path: '/', data: present(value), id: null }
}

/** The position in the server's log of an event's id. */
export function positionOf(id: string | null): number | null {
  return id === null ? null : Number.parseInt(id, 10)
}

/** An open stream. */
export interface StreamHandle {
  close(): void
  /** Reconnect now, if the stream waits for its next attempt. */
  retry(): void
}

/** Opens a stream. The listener is called later, never before the function returns. */
export type OpenStream = (request: StreamRequest, listener: StreamListener) => StreamHandle

/** Silence after which a connection counts as lost; servers send keep-alives each 30 s or less. */
const SILENCE_MS = 75_000
/** The longest `Retry-After` that is respected, so that a wrong header cannot stop a client. */
const RETRY_AFTER_MS_MAX = 15_000

/** Open a separate stream, with `fetch`: unlike an EventSource it sends a token and reports errors. */
export const openStream: OpenStream = (request, listener) => {
  const closed = new AbortController()
  const backoff = new Backoff(closed.signal)
  void run(request, listener, closed.signal, backoff)
  return { close: () => closed.abort(), retry: () => backoff.retry() }
}

async function run(
  request: StreamRequest,
  listener: StreamListener,
  closed: AbortSignal,
  backoff: Backoff,
): Promise<void> {
  let lastEventId = request.lastEventId
  const deliver = (event: StreamEvent) => {
    lastEventId = event.id ?? lastEventId
    listener.event(event)
  }
  while (!closed.aborted) {
    try {
      await connect({ ...request, lastEventId }, deliver, closed, () => {
        backoff.reset()
        listener.connection({ state: 'online' })
      })
    } catch (error) {
      if (closed.aborted) return
      if (error instanceof Refused) {
        listener.refused(error)
        return
      }
    }
    if (closed.aborted) return
    const delayMs = backoff.nextMs()
    listener.connection({ state: 'offline', retryAtMs: Date.now() + delayMs })
    await backoff.wait(delayMs)
  }
}

async function connect(
  request: StreamRequest,
  deliver: (event: StreamEvent) => void,
  closed: AbortSignal,
  connected: () => void,
): Promise<void> {
  const lost = new AbortController()
  const end = () => lost.abort()
  closed.addEventListener('abort', end)
  let watchdog = setTimeout(end, SILENCE_MS)
  try {
    const headers: Record<string, string> = {
      ...authorization(request.token),
      accept: 'text/event-stream',
    }
    // The server sends the events after this one, or the whole value if its log is too short.
    if (request.lastEventId !== null) headers['last-event-id'] = request.lastEventId
    const url = addressOf(request)
    const answer = await fetch(url, { headers, signal: lost.signal, cache: 'no-store' })
    if (!answer.ok || !answer.body) throw await refusal(answer)
    connected()
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
    const parser = new EventParser()
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      // Any bytes count, also keep-alives: a connection that is dead without a reset sends none.
      clearTimeout(watchdog)
      watchdog = setTimeout(end, SILENCE_MS)
      for (const message of parser.feed(value)) dispatch(message, deliver)
    }
  } finally {
    clearTimeout(watchdog)
    closed.removeEventListener('abort', end)
    end()
  }
}

function dispatch(message: Message, deliver: (event: StreamEvent) => void): void {
  if (message.type === 'put' || message.type === 'patch') {
    const { path, data } = JSON.parse(message.data) as { path: string; data: Json }
    deliver({ type: message.type, path, data, id: message.id })
  } else if (message.type === 'cancel') {
    throw new Refused(401, 'Permission denied')
  } else if (message.type === 'auth_revoked') {
    throw new Refused(401, `credentials were revoked: ${message.data}`)
  }
}

/** The base URL of a server, without a trailing slash; a relative `url` is of the page's origin. */
export function serverBase(url: string): string {
  return new URL(url, globalThis.location?.href).href.replace(/\/+$/, '')
}

/** The headers with a token. */
export function authorization(token: string): Record<string, string> {
  return token ? { authorization: `Bearer ${token}` } : {}
}

/** The URL of a path. */
export function addressOf(place: Pick<StreamRequest, 'base' | 'path' | 'namespace'>): string {
  const url = new URL(`${place.base}/${place.path.map(encodeURIComponent).join('/')}.json`)
  if (place.namespace) url.searchParams.set('ns', place.namespace)
  return url.href
}

/** The error of a response: `Offline` if it may be temporary, else `Refused`. */
export async function refusal(answer: Response): Promise<Refused | Offline> {
  const text = await answer.text().catch(() => '')
  let message = `the server answered ${answer.status}`
  try {
    const details = JSON.parse(text) as { error?: unknown }
    if (typeof details?.error === 'string') message = details.error
  } catch {
    // Not from the server itself but, for example, from a proxy: there is only the status.
  }
  if (answer.status !== 429 && answer.status < 500) return new Refused(answer.status, message)
  const seconds = Number(answer.headers.get('retry-after') ?? '')
  return Object.assign(new Offline(message), {
    status: answer.status,
    ...(seconds > 0 && { afterMs: Math.min(seconds * 1000, RETRY_AFTER_MS_MAX) }),
  })
}

interface Message {
  type: string
  data: string
  id: string | null
}

/** Cuts text into the messages of an event stream (WHATWG HTML, "server-sent events"). */
export class EventParser {
  /** The start of a line whose end has not arrived. */
  private rest = ''
  /** The fields of the current message; an empty line ends it. */
  private type = ''
  private data: string[] = []
  /** The last id: it is not reset with the message, but applies to later ones without an id. */
  private id: string | null = null

  feed(text: string): Message[] {
    const found: Message[] = []
    const held = this.rest + text
    // A \r at the end may be half of \r\n, which is one line break and not two.
    const whole = held.endsWith('\r') ? held.slice(0, -1) : held
    const lines = whole.split(/\r\n|\n|\r/)
    this.rest = (lines.pop() ?? '') + held.slice(whole.length)
    for (const line of lines) {
      if (line === '') {
        if (this.data.length) found.push(this.message())
        this.type = ''
        this.data = []
      } else {
        this.field(line)
      }
    }
    return found
  }

  private message(): Message {
    return { type: this.type || 'message', data: this.data.join('\n'), id: this.id }
  }

  private field(line: string): void {
    const colon = line.indexOf(':')
    if (colon === 0) return
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (name === 'event') this.type = value
    else if (name === 'data') this.data.push(value)
    else if (name === 'id' && !value.includes('\0')) this.id = value
  }
}
