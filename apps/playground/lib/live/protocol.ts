/** The messages between pages and the shared stream worker of a browser. */

import type { TreeEvent } from './tree'

/** How a stream is doing. `retryAtMs` is the time of the next attempt. */
export type StreamStatus =
  | { state: 'connecting' }
  | { state: 'live' }
  | { state: 'lost'; retryAtMs: number; reason: 'unreachable' | 'unauthenticated' | 'refused' }

export type ToHub =
  | { kind: 'watch'; path: string }
  | { kind: 'unwatch'; path: string }
  | { kind: 'retry' }
  | { kind: 'leave' }

export type FromHub =
  | { kind: 'event'; path: string; event: TreeEvent }
  | { kind: 'status'; path: string; status: StreamStatus }
