/** The messages between an upload and its workers. */

/** To a worker: send these bytes as one part. */
export interface PutPart {
  kind: 'put'
  ticket: number
  url: string
  body: Blob
  headers: Record<string, string>
}

/** To a worker: stop sending. */
export interface AbortPart {
  kind: 'abort'
  ticket: number
}

export type ToWorker = PutPart | AbortPart

/** From a worker: how many bytes of the part have been sent. */
export interface PartSent {
  kind: 'sent'
  ticket: number
  bytes: number
}

/** From a worker: the node has stored and verified the part. */
export interface PartStored {
  kind: 'stored'
  ticket: number
  sha256: string
}

/** From a worker: the part was refused, or did not reach the node (status 0). */
export interface PartFailed {
  kind: 'failed'
  ticket: number
  status: number
  body: string
}

export type FromWorker = PartSent | PartStored | PartFailed
