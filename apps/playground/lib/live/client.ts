/** The page's end of the live streams: a shared worker where there is one, else the page itself. */

import { LiveHub } from './hub'
import type { FromHub, StreamStatus, ToHub } from './protocol'
import { applyEvent, type Tree } from './tree'

/** What a component sees of a watched path; `ready` is false until the node has answered once. */
export interface LiveValue {
  tree: Tree
  ready: boolean
  status: StreamStatus
}

const START: LiveValue = { tree: null, ready: false, status: { state: 'connecting' } }

class LiveClient {
  private readonly values = new Map<string, LiveValue>()
  private readonly listeners = new Map<string, Set<() => void>>()
  private send: ((message: ToHub) => void) | null = null

  get(path: string): LiveValue {
    return this.values.get(path) ?? START
  }

  /** Call `listener` after every change at `path`, until the returned function is called. */
  watch(path: string, listener: () => void): () => void {
    const send = (this.send ??= this.connect())
    const known = this.listeners.get(path)
    if (known) known.add(listener)
    else {
      this.listeners.set(path, new Set([listener]))
      send({ kind: 'watch', path })
    }
    return () => this.unwatch(path, listener)
  }

  /** Try lost streams again at once. */
  retry(): void {
    this.send?.({ kind: 'retry' })
  }

  private unwatch(path: string, listener: () => void): void {
    const listeners = this.listeners.get(path)
    listeners?.delete(listener)
    if (listeners?.size !== 0) return
    this.listeners.delete(path)
    this.send?.({ kind: 'unwatch', path })
  }

  private connect(): (message: ToHub) => void {
    const hear = (message: FromHub) => this.hear(message)
    if (typeof SharedWorker === 'undefined') {
      const hub = new LiveHub()
      return (message) => hub.handle(message, hear)
    }
    const worker = new SharedWorker(new URL('../../workers/live.worker.ts', import.meta.url), {
      name: 'sennit-live',
    })
    worker.port.onmessage = ({ data }: MessageEvent<FromHub>) => hear(data)
    const send = (message: ToHub) => worker.port.postMessage(message)
    // A port does not notify its worker when the page closes; a page in the back cache may return.
    window.addEventListener('pagehide', () => send({ kind: 'leave' }))
    window.addEventListener('pageshow', (event) => {
      if (event.persisted) for (const path of this.listeners.keys()) send({ kind: 'watch', path })
    })
    return send
  }

  private hear(message: FromHub): void {
    const value = this.get(message.path)
    const next: LiveValue =
      message.kind === 'status'
        ? { ...value, status: message.status }
        : { ...value, tree: applyEvent(value.tree, message.event), ready: true }
    this.values.set(message.path, next)
    this.listeners.get(message.path)?.forEach((listener) => listener())
  }
}

/** The one client of this page. */
export const live = new LiveClient()
