/** Streams without a server: a test sends the events. */

import type { OpenStream, StreamEvent, StreamListener, StreamRequest } from '../src/stream.ts'
import type { Json } from '../src/values.ts'

export const REQUEST: StreamRequest = {
  base: 'http://x',
  path: ['a'],
  namespace: null,
  token: '',
  lastEventId: null,
}

export interface FakeStream extends StreamListener {
  request: StreamRequest
  isClosed: boolean
  retries: number
}

export class FakeStreams {
  readonly opened: FakeStream[] = []

  readonly open: OpenStream = (request, listener) => {
    const stream: FakeStream = { ...listener, request, isClosed: false, retries: 0 }
    this.opened.push(stream)
    return { close: () => (stream.isClosed = true), retry: () => (stream.retries += 1) }
  }

  /** The number of streams that are closed. */
  get closed(): number {
    return this.opened.filter(({ isClosed }) => isClosed).length
  }
}

/** A listener that appends events to an array. */
export function recorder(events: StreamEvent[]): StreamListener {
  return {
    event: (event) => events.push(event),
    connection: () => undefined,
    refused: () => undefined,
  }
}

/** A `put` event. */
export function put(path: string, data: Json, id: string | null = null): StreamEvent {
  return { type: 'put', path, data, id }
}

/** Wait until promises that can settle have settled. */
export async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve))
}
