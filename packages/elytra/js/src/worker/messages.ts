/** Messages between a node and its remote workers, version 1; `docs/workers.yaml` has all of them. */

import { SennitError } from '../errors.ts'
import type { PlanJson } from '../plan/json.ts'
import type { ResultSchema } from './channel.ts'
import { pack, unpack, type Packed } from './messagePack.ts'

export const VERSION = 1
export const SUBPROTOCOL = `sennit-worker-${VERSION}`

/** What a worker sends. */
export type FromWorker =
  | {
      word: 'hello'
      version: number
      engine: string
      kind: string
      threads: number
      cached: string[]
      resume: string | null
      attempts: string[]
      functions: boolean
    }
  | { word: 'credit'; n: number }
  | { word: 'renew'; attempt: string; bytesDone: number }
  | {
      word: 'partial'
      attempt: string
      planHash: string
      inputSha256: string
      engine: string
      sha256: string
      data: Uint8Array | null
    }
  | { word: 'failed'; attempt: string; code: string; message: string }
  | { word: 'drain' }

/** A task as the node sends it; its input has the streams of `spec.inputs` one after the other. */
export interface Task {
  word: 'task'
  attempt: string
  spec: { plan: PlanJson; inputs: { name: string; kind: string; id: string }[] }
  planHash: string
  input: string
  inputBytes: number
  inputSha256: string
  schema: ResultSchema
  upload: string
  leaseSeconds: number
}

export interface Welcome {
  word: 'welcome'
  worker: string
  resume: string
  inlineBytesMax: number
  resultBytesMax: number
  attempts: string[]
}

export type FromNode =
  | Welcome
  | Task
  | { word: 'cancel'; attempt: string }
  | { word: 'ack'; attempt: string }
  | { word: 'drain' }

const WORDS = ['welcome', 'task', 'cancel', 'ack', 'drain']

export function encode(message: FromWorker): Uint8Array<ArrayBuffer> {
  return pack(message as unknown as Packed)
}

/**
 * The message in a frame of the node.
 *
 * @throws SennitError if it is none of this version.
 */
export function decode(frame: Uint8Array): FromNode {
  const message = unpack(frame)
  const word =
    typeof message === 'object' && message !== null && 'word' in message ? message.word : null
  if (typeof word !== 'string' || !WORDS.includes(word))
    throw new SennitError(`a message of the node has the word ${String(word)}`, {
      code: 'bad-input',
    })
  return message as unknown as FromNode
}
