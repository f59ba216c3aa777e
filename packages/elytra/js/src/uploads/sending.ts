/**
 * The upload worker: hashes a part and sends it, off the page's thread.
 *
 * The body of the request is the slice of the file, which the browser reads while it sends: the bytes
 * of a part are in this process only while they are hashed. Bytes that changed between the two have
 * another hash than was announced, and the node refuses them.
 */

import { unreadable } from '../errors.ts'
import type { FromWorker, PutPart, ToWorker } from './messages.ts'
import { BlobHasher } from './sha256.ts'

/**
 * A request that moves no byte and gets no answer for so long is ended and sent again: after a
 * sleep or a change of networks its connection may be dead without a sign of it at either end.
 */
const STALL_MS = 120_000

const scope = self as unknown as DedicatedWorkerGlobalScope
const hasher = new BlobHasher()
const sending = new Map<number, XMLHttpRequest>()
/** Parts that are being hashed; an aborted one is not sent. */
const hashing = new Set<number>()

scope.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.kind === 'put') void put(data)
  else abort(data.ticket)
}

async function put(part: PutPart): Promise<void> {
  hashing.add(part.ticket)
  try {
    const sha256 = await hasher.hash(part.body)
    if (hashing.delete(part.ticket)) send(part, sha256)
  } catch (error) {
    // The file changed or vanished on disk between choosing it and reading it.
    hashing.delete(part.ticket)
    reply({ kind: 'failed', ticket: part.ticket, status: 400, body: unreadable(error) })
  }
}

// XMLHttpRequest, because fetch does not report the upload progress of a request body.
function send(part: PutPart, sha256: string): void {
  const { ticket } = part
  const request = new XMLHttpRequest()
  let stall = setTimeout(endStalled, STALL_MS)
  const finish = (message: FromWorker) => {
    clearTimeout(stall)
    sending.delete(ticket)
    reply(message)
  }
  function endStalled(): void {
    request.onabort = null
    request.abort()
    finish({ kind: 'failed', ticket, status: 0, body: '' })
  }
  request.open('PUT', part.url)
  for (const [name, value] of Object.entries(part.headers)) request.setRequestHeader(name, value)
  request.setRequestHeader('Content-Type', 'application/octet-stream')
  request.setRequestHeader('X-Sha256', sha256)
  request.upload.onprogress = (event) => {
    clearTimeout(stall)
    stall = setTimeout(endStalled, STALL_MS)
    reply({ kind: 'sent', ticket, bytes: event.loaded })
  }
  request.onload = () => {
    const { status, responseText: body } = request
    const isStored = status >= 200 && status < 300
    finish(isStored ? { kind: 'stored', ticket, sha256 } : { kind: 'failed', ticket, status, body })
  }
  request.onerror = () => finish({ kind: 'failed', ticket, status: 0, body: '' })
  request.onabort = () => {
    clearTimeout(stall)
    sending.delete(ticket)
  }
  sending.set(ticket, request)
  request.send(part.body)
}

function abort(ticket: number): void {
  hashing.delete(ticket)
  sending.get(ticket)?.abort()
}

function reply(message: FromWorker): void {
  scope.postMessage(message)
}
