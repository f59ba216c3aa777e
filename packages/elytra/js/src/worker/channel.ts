/**
 * The interface between the outer worker and the compute worker.
 *
 * The outer worker is trusted: it has the connection, the token and all requests. The compute worker
 * has the kernels, which are generated from the plan: it may evaluate text, and can reach nothing.
 * Columns cross as transferred buffers, which no longer belong to their sender.
 */

import type { PlanJson } from '../plan/json.ts'

/** The columns that a task's result must have. */
export interface ResultSchema {
  fields: { name: string; type: string }[]
}

/** What the outer worker sends. */
export type ToCompute =
  | {
      kind: 'compute'
      ticket: number
      plan: PlanJson
      schema: ResultSchema
      input: Uint8Array<ArrayBuffer>
    }
  /** The share of the time in which it computes, from 0 (exclusive) to 1; it sleeps in the rest. */
  | { kind: 'share'; share: number }
  /** The port to a frame that was asked for; null if the tab's owner runs no functions of others. */
  | { kind: 'frame'; id: number; port: MessagePort | null }

/** What the compute worker sends; `rows` counts from the task's first row. */
export type FromCompute =
  | { kind: 'ready' }
  | { kind: 'progress'; ticket: number; rows: number }
  /** `input` goes back, for the bytes of another one. */
  | {
      kind: 'done'
      ticket: number
      rows: number
      data: Uint8Array<ArrayBuffer>
      input: ArrayBuffer
    }
  | { kind: 'failed'; ticket: number; code: string; message: string }
  /** A frame of the page is to call the function of this code; until `frame-end`, or the task's end. */
  | { kind: 'frame'; ticket: number; id: number; code: string; outputBytesMax: number }
  | { kind: 'frame-end'; id: number }

/** The outer worker's end of a compute worker. */
export interface ComputePort {
  /** Send a message; `transfer` lists the buffers that are handed over. */
  post: (message: ToCompute, transfer: (ArrayBuffer | MessagePort)[]) => void
  /** Stop it at once, also in a loop without an end. */
  terminate: () => void
}

/** A frame of the page that calls a function. */
export interface PageFrame {
  /** The port to it; null if there is none. */
  port: Promise<MessagePort | null>
  close: () => void
}

/** Opens a frame of the page, which ends with `close`. */
export type OpenFrame = (code: string, outputBytesMax: number) => PageFrame

/** Start a compute worker; `onEnd` hears why it died, of its own accord. */
export type StartCompute = (
  onMessage: (message: FromCompute) => void,
  onEnd: (reason: string) => void,
) => ComputePort
