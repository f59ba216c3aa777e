/** A replica's link to its server: streams of its changes, and a client for writes. */

import { ElkynClient } from './client.ts'
import { changesOf, eventChanges } from './edits.ts'
import { AuthorizedStream } from './authorizedStream.ts'
import { type Held, hasLocks, holdLock } from './locks.ts'
import type { Change, Overlay } from './overlay.ts'
import { formatPath, isWithin, parsePath, type Path } from './paths.ts'
import { PendingWrites } from './pending.ts'
import type { QueuedWrite } from './queue.ts'
import type { StoreOptions } from './store.ts'
import { openStream, positionOf, serverBase, type StreamEvent } from './stream.ts'
import { getAt } from './values.ts'

/** The server's positions by followed path. */
type Seen = Readonly<Record<string, string>>

/** The interface of a store that its replica link uses. */
export interface ReplicaStore {
  /** Whether other tabs share the store: then one of them follows for all. */
  isShared: boolean
  /** Store changes of the server. */
  event(changes: readonly Change[], seen: Record<string, string> | null): Promise<void>
  /** The visible value may have changed. */
  changed(): void
  /** A path is no longer followed. */
  failed(error: Error): void
}

export class Replica {
  readonly client: ElkynClient
  private readonly paths: readonly Path[]
  private readonly pending: PendingWrites
  private streams: AuthorizedStream[] = []
  private lock: Held | null = null

  constructor(
    private readonly options: StoreOptions,
    private readonly overlay: Overlay,
    private readonly store: ReplicaStore,
  ) {
    const { url = '', token, namespace, storage } = options
    this.paths = topmost((options.paths ?? ['/']).map(parsePath))
    this.pending = new PendingWrites(overlay, () => store.changed())
    this.client = new ElkynClient(
      url,
      { token, namespace, storage },
      {
        added: (write) => this.add(write),
        done: (write, position) => this.pending.done(write, position),
        failed: (write) => this.pending.drop(write),
      },
    )
  }

  /** Start following after the positions `seen`; of several tabs with one store, one follows. */
  start(seen: () => Seen): void {
    const begin = () => {
      this.streams = this.paths.map((path) => this.follow(path, seen()))
    }
    if (this.store.isShared && hasLocks()) this.lock = holdLock(this.lockName, begin)
    else begin()
  }

  /** Whether a state of every followed path has arrived. */
  isCoveredBy(seen: Seen): boolean {
    return this.paths.every((path) => formatPath(path) in seen)
  }

  /** Process an entry of the log, of this tab or another one. */
  settled(changes: readonly Change[], seen: Seen): void {
    const [[base, position] = ['/', null]] = Object.entries(seen)
    this.pending.confirm({ base: parsePath(base), changes, position: positionOf(position) })
  }

  close(): void {
    for (const stream of this.streams) stream.close()
    this.lock?.release()
    this.pending.close()
    this.client.close()
  }

  private get lockName(): string {
    return `elkyn-replica ${this.options.path ?? ''}`
  }

  private add(write: QueuedWrite): void {
    const changes = this.paths.flatMap((top) =>
      changesOf(write, top, getAt(this.overlay.shown, top)).map(({ path, value }) => ({
        path: [...top, ...path],
        value,
      })),
    )
    this.pending.add(write, changes)
    this.store.changed()
  }

  private follow(path: Path, seen: Seen): AuthorizedStream {
    const { url = '', token, namespace, streams = openStream, onError } = this.options
    const name = formatPath(path)
    let last = seen[name] ?? null
    const place = {
      base: serverBase(url),
      path,
      namespace: namespace ?? null,
    }
    const failed = (error: Error) => {
      this.store.failed(error)
      if (onError) onError(error)
      else console.warn(`${name} is no longer followed: ${error.message}`) // eslint-disable-line no-console -- there is no other place to report it
    }
    const receive = (event: StreamEvent) => {
      last = event.id ?? last
      const position = event.id === null ? null : { [name]: event.id }
      this.store.event(eventChanges(path, event), position).catch((error: Error) => {
        for (const stream of this.streams) stream.close()
        failed(error)
      })
    }
    return new AuthorizedStream(streams, token, () => ({ ...place, lastEventId: last }), {
      event: receive,
      connection: () => undefined,
      refused: failed,
    })
  }
}

/** The paths that are not inside another one. */
function topmost(paths: readonly Path[]): Path[] {
  const sorted = [...paths].sort((left, right) => left.length - right.length)
  return sorted.filter((path, index) => !sorted.slice(0, index).some((top) => isWithin(path, top)))
}
