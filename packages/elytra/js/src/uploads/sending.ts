/** The upload worker: reads a part from disk, hashes it and sends it, off the page's thread. */

import { unreadable } from '../errors.ts'
import type { FromWorker, PutPart, ToWorker } from './messages.ts'
import { sha256Hex } from './sha256.ts'

const scope = self as unknown as DedicatedWorkerGlobalScope
const sending = new Map<number, XMLHttpRequest>()
/** Parts that were aborted before they had a request: while they were read or hashed. */
const aborted = new Set<number>()

scope.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.kind === 'put') void put(data)
  else abort(data.ticket)
}

async function put(part: PutPart): Promise<void> {
  try {
    const bytes = new Uint8Array(await part.body.arrayBuffer())
    const sha256 = await sha256Hex(bytes)
    if (aborted.delete(part.ticket)) return
    send(part, bytes, sha256)
  } catch (error) {
    // The file changed or vanished on disk between choosing it and reading it.
    reply({ kind: 'failed', ticket: part.ticket, status: 400, body: unreadable(error) })
  }
}

// XMLHttpRequest, because fetch does not report the upload progress of a request body.
function send(part: PutPart, bytes: Uint8Array<ArrayBuffer>, sha256: string): void {
  const request = new XMLHttpRequest()
  const finish = (message: FromWorker) => {
    sending.delete(part.ticket)
    reply(message)
  }
  request.open('PUT', part.url)
  for (const [name, value] of Object.entries(part.headers)) request.setRequestHeader(name, value)
  request.setRequestHeader('Content-Type', 'application/octet-stream')
  request.setRequestHeader('X-Sha256', sha256)
  request.upload.onprogress = (event) =>
    reply({ kind: 'sent', ticket: part.ticket, bytes: event.loaded })
  request.onload = () => {
    const ok = request.status >= 200 && request.status < 300
    finish(
      ok
        ? { kind: 'stored', ticket: part.ticket, sha256 }
        : failure(part.ticket, request.status, request.responseText),
    )
  }
  request.onerror = () => finish(failure(part.ticket, 0, ''))
  request.onabort = () => sending.delete(part.ticket)
  sending.set(part.ticket, request)
  request.send(bytes)
}

function abort(ticket: number): void {
  const request = sending.get(ticket)
  if (request) request.abort()
  else aborted.add(ticket)
}

function failure(ticket: number, status: number, body: string): FromWorker {
  return { kind: 'failed', ticket, status, body }
}

function reply(message: FromWorker): void {
  scope.postMessage(message)
}
