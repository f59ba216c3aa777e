/** Shares streams between watchers: one stream for each path, open while it has watchers. */

import type { FromHub, ToHub } from './protocol'
import { LiveStream } from './stream'

/** A watcher receives the hub's messages. */
export type Watcher = (message: FromHub) => void

export class LiveHub {
  private readonly streams = new Map<string, { stream: LiveStream; watchers: Set<Watcher> }>()

  /** Carry out what a page asks for. */
  handle(message: ToHub, watcher: Watcher): void {
    if (message.kind === 'watch') this.watch(message.path, watcher)
    else if (message.kind === 'unwatch') this.unwatch(message.path, watcher)
    else if (message.kind === 'retry')
      for (const { stream } of this.streams.values()) stream.retryNow()
    else for (const path of [...this.streams.keys()]) this.unwatch(path, watcher)
  }

  private watch(path: string, watcher: Watcher): void {
    const known = this.streams.get(path)
    if (known) {
      known.watchers.add(watcher)
      watcher({ kind: 'status', path, status: known.stream.status })
      // A new watcher starts from the current value, as with a new stream from the node.
      if (known.stream.ready)
        watcher({ kind: 'event', path, event: { type: 'put', path: '/', data: known.stream.tree } })
      return
    }
    const watchers = new Set([watcher])
    const notify = (message: FromHub) => watchers.forEach((each) => each(message))
    const stream = new LiveStream(
      path,
      (event) => notify({ kind: 'event', path, event }),
      (status) => notify({ kind: 'status', path, status }),
    )
    this.streams.set(path, { stream, watchers })
  }

  private unwatch(path: string, watcher: Watcher): void {
    const known = this.streams.get(path)
    if (!known) return
    known.watchers.delete(watcher)
    if (known.watchers.size > 0) return
    known.stream.close()
    this.streams.delete(path)
  }
}
