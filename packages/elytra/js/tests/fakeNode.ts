/** A node and a worker in memory, with faults that a test can order. */

import { createHash } from 'node:crypto'

import type { Connectivity } from '../src/uploads/connectivity.ts'
import type { FromWorker, PutPart, ToWorker } from '../src/uploads/messages.ts'
import type { WorkerLike } from '../src/uploads/pool.ts'
import { UploadApi } from '../src/uploads/session.ts'
import type { UploadClock } from '../src/uploads/retry.ts'

/** Statuses to answer with before the real answer; 0 is a broken connection. */
export type Faults = number[]

export class FakeNode {
  readonly parts = new Map<number, Uint8Array>()
  readonly log: string[] = []
  putFaults: Faults = []
  startFaults: Faults = []
  completeFaults: Faults = []
  loseAtFirstCompletion: number[] = []
  refuseAfter = Infinity
  hold = false
  private held: (() => void)[] = []
  private session: { name: string; size: number; mode?: string } | null = null

  constructor(readonly partBytes = 4) {}

  readonly fetch: typeof fetch = async (input, init) => {
    const path = String(input)
    const method = init?.method ?? 'GET'
    this.log.push(`${method} ${path}`)
    const answer = this.answer(method, path, init?.body as string | null)
    if (answer === 0) throw new TypeError('fetch failed')
    return new Response(JSON.stringify(answer.body), { status: answer.status })
  }

  api(): UploadApi {
    return new UploadApi('', {}, this.fetch)
  }

  receive(body: Uint8Array, index: number): number {
    const fault = this.putFaults.shift()
    if (fault !== undefined) return fault
    if (this.parts.size >= this.refuseAfter) return 413
    this.parts.set(index, body)
    return 200
  }

  bytes(): Buffer {
    return Buffer.concat(
      [...this.parts.entries()].sort(([a], [b]) => a - b).map(([, body]) => body),
    )
  }

  forget(): void {
    this.session = null
    this.parts.clear()
  }

  release(): void {
    this.hold = false
    for (const go of this.held.splice(0)) go()
  }

  gate(): Promise<void> {
    return this.hold ? new Promise((resolve) => this.held.push(resolve)) : Promise.resolve()
  }

  private answer(
    method: string,
    path: string,
    body: string | null,
  ): { status: number; body: unknown } | 0 {
    if (path === '/api/start-upload') {
      const fault = this.startFaults.shift()
      if (fault === 0) return 0
      if (fault)
        return {
          status: fault,
          body: {
            error: 'There is a dataset of this name.',
            code: 'conflict',
            hint: 'Replace it.',
          },
        }
      this.session = JSON.parse(body!)
      return {
        status: 200,
        body: { uploadId: 'u1', partBytes: this.partBytes, have: [...this.parts.keys()] },
      }
    }
    if (path.endsWith('/complete')) {
      const fault = this.completeFaults.shift()
      if (fault === 0) return 0
      if (fault) return { status: fault, body: { error: 'fault', code: 'busy', hint: null } }
      const missing = this.loseAtFirstCompletion.splice(0)
      missing.forEach((index) => this.parts.delete(index))
      if (missing.length)
        return {
          status: 409,
          body: {
            error: 'Parts are missing.',
            code: 'upload-incomplete',
            hint: null,
            details: { missing },
          },
        }
      return { status: 200, body: { datasetId: 'd1', jobId: 'j1' } }
    }
    if (method === 'GET') {
      if (!this.session || !path.endsWith('/u1'))
        return { status: 404, body: { error: 'No such upload.', code: 'not-found', hint: null } }
      return {
        status: 200,
        body: {
          uploadId: 'u1',
          size: this.session.size,
          partBytes: this.partBytes,
          have: [...this.parts.keys()],
          state: 'receiving',
        },
      }
    }
    return { status: 200, body: null }
  }
}

/** A worker that delivers to a FakeNode. */
export function fakeWorker(node: FakeNode): WorkerLike {
  const aborted = new Set<number>()
  const worker: WorkerLike = {
    onmessage: null,
    onerror: null,
    terminate: () => undefined,
    postMessage: (message) => void onMessage(message),
  }
  const reply = (data: FromWorker) => worker.onmessage?.({ data } as MessageEvent<FromWorker>)
  async function onMessage(message: ToWorker): Promise<void> {
    if (message.kind === 'abort') return void aborted.add(message.ticket)
    await deliver(message)
  }
  async function deliver(part: PutPart): Promise<void> {
    const body = new Uint8Array(await part.body.arrayBuffer())
    // More than the part holds, as a broken browser might count headers.
    reply({ kind: 'sent', ticket: part.ticket, bytes: body.length * 2 })
    await node.gate()
    if (aborted.has(part.ticket)) return
    const status = node.receive(body, Number(part.url.split('/').at(-1)))
    if (status === 200)
      reply({
        kind: 'stored',
        ticket: part.ticket,
        sha256: createHash('sha256').update(body).digest('hex'),
      })
    else
      reply({
        kind: 'failed',
        ticket: part.ticket,
        status,
        body: JSON.stringify({ error: `fault ${status}`, code: 'busy', hint: null }),
      })
  }
  return worker
}

/** A clock whose sleeps are over at once, and are remembered. */
export class FakeClock implements UploadClock {
  time = 0
  readonly slept: number[] = []

  nowMs(): number {
    return (this.time += 50)
  }

  async sleep(ms: number): Promise<void> {
    this.slept.push(ms)
    this.time += ms
  }
}

/** A network that a test takes away and gives back. */
export class FakeNetwork implements Connectivity {
  isOnline = true
  private readonly waiting = new Set<() => void>()

  online(): boolean {
    return this.isOnline
  }

  onOnline(action: () => void): () => void {
    this.waiting.add(action)
    return () => this.waiting.delete(action)
  }

  connect(): void {
    this.isOnline = true
    for (const action of [...this.waiting]) action()
  }
}
