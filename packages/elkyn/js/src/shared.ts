/**
 * One connection for a whole browser: a SharedWorker listens on behalf of all pages.
 *
 * A page holds a lock while it lives; the worker waits for that lock, so that it also notices a
 * page that crashed. Listeners of pages without locks (no https) end with their message or port.
 */

import { Refused } from './errors.ts'
import { type Held, hasLocks, holdLock } from './locks.ts'
import { randomName } from './random.ts'
import type {
  Connection,
  OpenStream,
  StreamEvent,
  StreamHandle,
  StreamListener,
  StreamRequest,
} from './stream.ts'

type ToWorker =
  | { kind: 'hello'; lock: string }
  | { kind: 'open'; id: number; request: StreamRequest }
  | { kind: 'retry'; id: number }
  | { kind: 'close'; id: number }
  | { kind: 'bye' }

type FromWorker =
  | { kind: 'event'; id: number; event: StreamEvent }
  | { kind: 'connection'; id: number; connection: Connection }
  | { kind: 'refused'; id: number; status: number; message: string }

/** The part of a MessagePort that this module uses. */
export interface Port {
  postMessage(message: unknown): void
  addEventListener(type: 'message', listener: (event: MessageEvent) => void): void
  addEventListener(type: 'close', listener: () => void): void
  start(): void
}

/** The part of a SharedWorker that this module uses. */
export interface Worker {
  readonly port: Port
  addEventListener(type: 'error', listener: () => void): void
}

interface Open {
  request: StreamRequest
  listener: StreamListener
  /** The page's own stream, when there is no worker. */
  own: StreamHandle | null
}

/**
 * Returns streams through a SharedWorker that runs `@sennit/elkyn/worker`.
 *
 * @param worker null where browsers have none (`globalThis.SharedWorker` is undefined): the page
 *   then has its own connection, as when the worker's script does not load
 * @param own opens streams without the worker
 */
export function sharedStreams(worker: Worker | null, own: OpenStream): OpenStream {
  if (worker === null) return own
  const page = new SharedPage(worker.port, own)
  worker.addEventListener('error', () => page.leaveWorker())
  return (request, listener) => page.open(request, listener)
}

/** A page's end of the port. */
class SharedPage {
  private readonly opened = new Map<number, Open>()
  private last = 0
  private hasWorker = true

  constructor(
    private readonly port: Port,
    private readonly own: OpenStream,
  ) {
    port.addEventListener('message', ({ data }: MessageEvent<FromWorker>) => this.receive(data))
    port.start()
    if (hasLocks()) {
      const lock = `elkyn-page ${randomName()}`
      holdLock(lock, () => this.post({ kind: 'hello', lock }))
    }
    globalThis.addEventListener?.('pagehide', () => this.post({ kind: 'bye' }))
    globalThis.addEventListener?.('pageshow', (event) => {
      if ((event as PageTransitionEvent).persisted) this.openAgain()
    })
  }

  open(request: StreamRequest, listener: StreamListener): StreamHandle {
    const id = (this.last += 1)
    const entry: Open = { request, listener, own: null }
    this.opened.set(id, entry)
    this.start(id, entry)
    return {
      close: () => {
        if (!this.opened.delete(id)) return
        if (entry.own) entry.own.close()
        else this.post({ kind: 'close', id })
      },
      retry: () => {
        if (entry.own) entry.own.retry()
        else this.post({ kind: 'retry', id })
      },
    }
  }

  /** The worker's script did not load: listen without it. */
  leaveWorker(): void {
    if (!this.hasWorker) return
    this.hasWorker = false
    this.openAgain()
  }

  private start(id: number, entry: Open): void {
    if (this.hasWorker) this.post({ kind: 'open', id, request: entry.request })
    else entry.own = this.own(entry.request, entry.listener)
  }

  private openAgain(): void {
    for (const [id, entry] of this.opened) if (!entry.own) this.start(id, entry)
  }

  private post(message: ToWorker): void {
    if (this.hasWorker) this.port.postMessage(message)
  }

  private receive(message: FromWorker): void {
    const listener = this.opened.get(message.id)?.listener
    if (message.kind === 'event') listener?.event(message.event)
    else if (message.kind === 'connection') listener?.connection(message.connection)
    else listener?.refused(new Refused(message.status, message.message))
  }
}

/** Returns the handler of each port that connects to the SharedWorker. */
export function serveStreams(open: OpenStream): (port: Port) => void {
  return (port) => {
    const streams = new Map<number, StreamHandle>()
    let lock: Held | null = null
    const post = (message: FromWorker) => port.postMessage(message)
    const close = (id: number) => {
      streams.get(id)?.close()
      streams.delete(id)
    }
    const leave = () => {
      for (const id of [...streams.keys()]) close(id)
    }
    const start = (id: number, request: StreamRequest) => {
      close(id)
      const stream = open(request, {
        event: (event) => post({ kind: 'event', id, event }),
        connection: (connection) => post({ kind: 'connection', id, connection }),
        refused: ({ status, message }) => post({ kind: 'refused', id, status, message }),
      })
      streams.set(id, stream)
    }
    port.addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
      if (data.kind === 'bye') leave()
      else if (data.kind === 'close') close(data.id)
      else if (data.kind === 'retry') streams.get(data.id)?.retry()
      else if (data.kind === 'open') start(data.id, data.request)
      else if (hasLocks()) {
        lock = holdLock(data.lock, () => {
          leave()
          lock?.release()
        })
      }
    })
    port.addEventListener('close', leave)
    port.start()
  }
}
