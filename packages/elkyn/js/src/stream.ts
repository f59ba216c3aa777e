/**
 * Event streams of a server (`text/event-stream` with Firebase's events), kept alive.
 *
 * A stream reconnects automatically and resumes after the last event it received, so that a
 * listener misses no event; where the server cannot resume, it sends the whole value again.
 */

import { Offline, Refused } from './errors.js'
import type { Path } from './paths.js'
import type { Json } from './values.js'

/** One event: `put` replaces what is at `path`, `patch` replaces several children of it. */
export interface StreamEvent {
  type: 'put' | 'patch'
  path: string
  data: Json
  /** The position of the event in the server's log. */
  id: string | null
}

export interface StreamListener {
  event(event: StreamEvent): void
  /** Whether the stream is connected. */
  online(live: boolean): void
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

/** The position in the server's log of an event's id. */
export function positionOf(id: string | null): number | null {
  return id === null ? null : Number.parseInt(id, 10)
}

/** Opens a stream; returns the function that closes it. */
export type OpenStream = (request: StreamRequest, listener: StreamListener) => () => void

/** Silence after which a connection counts as lost; servers send keep-alives each 30 s or less. */
const SILENCE_MS = 75_000
const RETRY_MS_MAX = 15_000

/** Open a separate stream, with `fetch`. */
export const openStream: OpenStream = (request, listener) => {
  const closed = new AbortController()
  void run(request, listener, closed.signal)
  return () => closed.abort()
}

async function run(
  request: StreamRequest,
  listener: StreamListener,
  closed: AbortSignal,
): Promise<void> {
  let lastEventId = request.lastEventId
  const deliver = (event: StreamEvent) => {
    lastEventId = event.id ?? lastEventId
    listener.event(event)
  }
  for (let failures = 0; !closed.aborted; failures += 1) {
    try {
      await connect({ ...request, lastEventId }, deliver, closed, () => {
        failures = 0
        listener.online(true)
      })
    } catch (error) {
      if (closed.aborted) return
      if (error instanceof Refused) {
        listener.refused(error)
        return
      }
    }
    if (closed.aborted) return
    listener.online(false)
    await delay(backoff(failures), closed)
  }
}

/** Milliseconds to wait before try number `failures`, with jitter. */
export function backoff(failures: number): number {
  return Math.min(250 * 2 ** failures, RETRY_MS_MAX) * (0.5 + Math.random() / 2)
}

/** Wait; ends early when `closed` aborts or the network is back. */
export function delay(ms: number, closed: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      closed.removeEventListener('abort', done)
      globalThis.removeEventListener?.('online', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    closed.addEventListener('abort', done)
    globalThis.addEventListener?.('online', done)
    if (closed.aborted) done()
  })
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
    ...(seconds > 0 && { afterMs: Math.min(seconds * 1000, RETRY_MS_MAX) }),
  })
}

interface Message {
  type: string
  data: string
  id: string | null
}

/** Cuts text into the messages of an event stream (WHATWG HTML, "server-sent events"). */
export class EventParser {
  private rest = ''
  private type = ''
  private data: string[] = []
  private id: string | null = null

  feed(text: string): Message[] {
    const found: Message[] = []
    const held = this.rest + text
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
