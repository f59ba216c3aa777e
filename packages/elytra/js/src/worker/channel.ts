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

/** The outer worker's end of a compute worker. */
export interface ComputePort {
  /** Send a message; `transfer` lists the buffers that are handed over. */
  post: (message: ToCompute, transfer: ArrayBuffer[]) => void
  /** Stop it at once, also in a loop without an end. */
  terminate: () => void
}

/** Start a compute worker; `onEnd` hears why it died, of its own accord. */
export type StartCompute = (
  onMessage: (message: FromCompute) => void,
  onEnd: (reason: string) => void,
) => ComputePort
