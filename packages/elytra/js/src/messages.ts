/** What an upload and its workers say to one another. */

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

/** From a worker: so many bytes of the part have left. */
export interface PartSent {
  kind: 'sent'
  ticket: number
  bytes: number
}

/** From a worker: the node has the part, whole and verified. */
export interface PartStored {
  kind: 'stored'
  ticket: number
  sha256: string
}

/** From a worker: the part was refused, or never arrived (status 0). */
export interface PartFailed {
  kind: 'failed'
  ticket: number
  status: number
  body: string
}

export type FromWorker = PartSent | PartStored | PartFailed
