/** Messages between a page and its outer worker. */

import type { WorkerState } from './remoteWorker.ts'

/** What a page may change while the worker runs. */
export interface WorkerControls {
  /** The share of the time in which kernels run, from 0 (exclusive) to 1. */
  share?: number
  /** Bytes received and sent after which the worker pauses; Infinity for no limit. */
  bytesMax?: number
  /** Bytes of inputs that the browser keeps for later tasks; 0 for none. */
  inputBytesMax?: number
  /** Why the worker is to pause, or null to continue. */
  paused?: string | null
  /** Whether functions of others are run; not by default. */
  functions?: boolean
}

/** What the page sends. */
export type ToOuter =
  | {
      kind: 'start'
      token: string
      kindShown: string
      /** One less than the machine has cores by default. */
      threads?: number
      controls: WorkerControls
    }
  | { kind: 'set'; controls: WorkerControls }
  | { kind: 'drain' }
  /** The port to a frame that was asked for; null if the page has none. */
  | { kind: 'frame'; id: number; port: MessagePort | null }

/** What the outer worker sends. */
export type FromOuter =
  | WorkerState
  /** A frame is to call the function of this code, until `frame-end`. */
  | { kind: 'frame'; id: number; code: string; outputBytesMax: number }
  | { kind: 'frame-end'; id: number }
