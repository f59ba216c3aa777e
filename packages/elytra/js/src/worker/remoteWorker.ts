/**
 * A remote worker: it connects to a node, computes tasks, and returns results.
 *
 *   hello -> welcome -> credit -> task -> GET input -> renew … -> partial -> ack -> credit -> …
 *
 * It has no timer but the pause before it connects again: the node measures all times.
 */

import { describeResponse, SennitError } from '../errors.ts'
import { planHash } from '../plan/canonical.ts'
import { sha256Hex } from '../uploads/sha256.ts'
import { compute } from './compute.ts'
import {
  decode,
  encode,
  SUBPROTOCOL,
  VERSION,
  type FromNode,
  type FromWorker,
  type Task,
  type Welcome,
} from './messages.ts'

/** The engine's version: the states of aggregates have no other format. */
export const ENGINE = 'sennit-js 0.1.0'

/** After these a connection would be refused again. */
const FINAL = new Map([
  [4400, 'the node has refused a message'],
  [4403, 'the token is not admitted'],
  [4406, 'the node has another version of the protocol'],
  [4426, 'the node has another version of the engine'],
])
/** The close code of a connection that ended without one. */
const ABNORMAL = 1006
const RETRY_MS = 500
const RETRY_MAX_MS = 15_000
const RANGE_BYTES = 4 << 20

export interface WorkerOptions {
  /** The node's address; the page's own origin by default. */
  url?: string
  /** A token with the role `worker`: `platform workers invite` makes one. */
  token: string
  /** What `platform workers` shows. */
  kind?: string
  onChange?: (state: WorkerState) => void
}

/** What a worker does. */
export interface WorkerState {
  connected: boolean
  computing: number
  done: number
  failed: number
  /** Why it has ended for good, or null. */
  ended: string | null
}

/** One worker with one task at a time. */
export class RemoteWorker {
  private readonly url: string
  private socket: WebSocket | null = null
  private resume: string | null = null
  private limits: Welcome | null = null
  private stopped = false
  /** Attempts that are computed; a cancelled one is taken out. */
  private readonly running = new Set<string>()
  /** Results that the node has not acknowledged. */
  private readonly results = new Map<string, FromWorker>()
  private state: WorkerState = { connected: false, computing: 0, done: 0, failed: 0, ended: null }
  private pauseMs = RETRY_MS
  /** Settles when the worker was stopped, or the node does not admit it. */
  readonly ended: Promise<WorkerState>
  private end: (state: WorkerState) => void = () => undefined

  constructor(private readonly options: WorkerOptions) {
    this.url = (options.url ?? globalThis.location?.origin ?? '').replace(/\/+$/, '')
    this.ended = new Promise((resolve) => (this.end = resolve))
  }

  /** Connect, and compute tasks until it is stopped. */
  start(): this {
    this.connect()
    return this
  }

  /** Finish the tasks that are computed, without taking others; then disconnect. */
  drain(): void {
    this.stopped = true
    this.send({ word: 'drain' })
    if (this.isIdle) this.close('stopped')
  }

  /** Disconnect at once; the node gives its tasks to others. */
  stop(): void {
    this.stopped = true
    this.running.clear()
    this.close('stopped')
  }

  private get isIdle(): boolean {
    return this.running.size === 0 && this.results.size === 0
  }

  private connect(): void {
    const address = `${this.url.replace(/^http/, 'ws')}/api/workers`
    const socket = new WebSocket(address, [SUBPROTOCOL, `sennit-token.${this.options.token}`])
    socket.binaryType = 'arraybuffer'
    this.socket = socket
    socket.onopen = () => this.greet()
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer>) =>
      this.receive(decode(new Uint8Array(data)))
    socket.onclose = ({ code }) => this.lost(socket, code)
    // Node 20 tells of a connection that was refused by an error alone.
    socket.onerror = () => this.lost(socket, ABNORMAL)
  }

  /** The connection has ended, or there was none: each socket counts once. */
  private lost(socket: WebSocket, code: number): void {
    if (this.socket !== socket) return
    this.socket = null
    if (code !== ABNORMAL || this.state.connected) return this.disconnected(code)
    void this.isRefused().then((refused) => this.disconnected(refused ? 4403 : code))
  }

  /** Whether the node refuses the token; a WebSocket does not say why it could not be opened. */
  private async isRefused(): Promise<boolean> {
    try {
      const headers = { Authorization: `Bearer ${this.options.token}` }
      const { status } = await fetch(`${this.url}/api/workers/inputs/none`, { headers })
      return status === 401 || status === 403
    } catch {
      return false // the node is not up
    }
  }

  private greet(): void {
    this.send({
      word: 'hello',
      version: VERSION,
      engine: ENGINE,
      kind: this.options.kind ?? (typeof document === 'undefined' ? 'node' : 'tab'),
      threads: 1,
      cached: [],
      resume: this.resume,
      attempts: [...this.running, ...this.results.keys()],
    })
  }

  private disconnected(code: number): void {
    this.change({ connected: false })
    const final = FINAL.get(code)
    if (final !== undefined) this.close(`${final} (${code})`)
    if (this.state.ended !== null) return
    if (this.stopped && this.isIdle) return this.close('stopped')
    setTimeout(() => this.state.ended === null && this.connect(), this.pauseMs)
    this.pauseMs = Math.min(RETRY_MAX_MS, 2 * this.pauseMs)
  }

  private close(reason: string): void {
    if (this.state.ended !== null) return
    this.change({ ended: reason })
    this.socket?.close()
    this.end(this.state)
  }

  private receive(message: FromNode): void {
    switch (message.word) {
      case 'welcome':
        return this.welcomed(message)
      case 'task':
        return void this.work(message)
      case 'cancel':
        this.results.delete(message.attempt)
        // One that is computed gives its credit back when its loop has noticed.
        if (!this.running.delete(message.attempt)) this.credit(1)
        return
      case 'ack':
        if (this.results.delete(message.attempt)) this.credit(1)
        return
      case 'drain':
        return // the node closes the connection next
    }
  }

  private welcomed(welcome: Welcome): void {
    this.limits = welcome
    this.resume = welcome.resume
    this.pauseMs = RETRY_MS
    for (const attempt of this.results.keys())
      if (!welcome.attempts.includes(attempt)) this.results.delete(attempt)
    for (const attempt of this.running)
      if (!welcome.attempts.includes(attempt)) this.running.delete(attempt)
    this.change({ connected: true })
    for (const result of this.results.values()) this.send(result)
    if (this.isIdle) this.credit(1)
  }

  private credit(n: number): void {
    if (!this.stopped) this.send({ word: 'credit', n })
    else if (this.isIdle) this.close('stopped')
  }

  private async work(task: Task): Promise<void> {
    const { attempt } = task
    this.running.add(attempt)
    this.change({ computing: 1 })
    let result: FromWorker
    try {
      result = await this.result(task)
      this.change({ done: this.state.done + 1 })
    } catch (error) {
      const code = error instanceof SennitError ? error.code : 'internal'
      result = { word: 'failed', attempt, code, message: String(error).slice(0, 500) }
      this.change({ failed: this.state.failed + 1 })
    }
    this.change({ computing: 0 })
    if (!this.running.delete(attempt)) return this.credit(1) // cancelled
    this.results.set(attempt, result)
    this.send(result)
  }

  private async result(task: Task): Promise<FromWorker> {
    const { attempt, spec, inputSha256 } = task
    if ((await planHash(spec.plan)) !== task.planHash)
      throw new SennitError('the plan has another hash', { code: 'bad-input' })
    const input = await this.fetchInput(task)
    let done = input.length
    const data = await compute(spec.plan, task.schema, input, async (rows) => {
      done += rows
      this.renew(attempt, done)
      await turn()
    })
    const sha256 = await sha256Hex(data)
    const isInline = data.length <= (this.limits?.inlineBytesMax ?? 0)
    if (!isInline) await this.upload(task, data, sha256)
    return {
      word: 'partial',
      attempt,
      planHash: task.planHash,
      inputSha256,
      engine: ENGINE,
      sha256,
      data: isInline ? data : null,
    }
  }

  /** The whole input, in ranges: a long download renews the lease. */
  private async fetchInput(task: Task): Promise<Uint8Array<ArrayBuffer>> {
    const input = new Uint8Array(task.inputBytes)
    for (let at = 0; at < input.length; at += RANGE_BYTES) {
      const end = Math.min(input.length, at + RANGE_BYTES) - 1
      const response = await this.request(task.input, { headers: { Range: `bytes=${at}-${end}` } })
      const piece = new Uint8Array(await response.arrayBuffer())
      if (piece.length !== end - at + 1)
        throw new SennitError('a part of the input has another length', { code: 'unavailable' })
      input.set(piece, at)
      this.renew(task.attempt, end + 1)
    }
    if ((await sha256Hex(input)) !== task.inputSha256)
      throw new SennitError('the input is damaged', { code: 'unavailable' })
    return input
  }

  private async upload(task: Task, data: Uint8Array<ArrayBuffer>, sha256: string): Promise<void> {
    await this.request(task.upload, { method: 'PUT', body: data, headers: { 'X-Sha256': sha256 } })
  }

  private async request(path: string, init: RequestInit): Promise<Response> {
    const headers = { ...init.headers, Authorization: `Bearer ${this.options.token}` }
    const response = await fetch(this.url + path, { ...init, headers })
    if (!response.ok)
      throw new SennitError(...describeResponse(response.status, await response.text()))
    return response
  }

  private renew(attempt: string, bytesDone: number): void {
    if (!this.running.has(attempt))
      throw new SennitError('the attempt was cancelled', { code: 'cancelled' })
    this.send({ word: 'renew', attempt, bytesDone })
  }

  private send(message: FromWorker): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(encode(message))
  }

  private change(change: Partial<WorkerState>): void {
    this.state = { ...this.state, ...change }
    this.options.onChange?.(this.state)
  }
}

/**
 * Let the thread's other events happen: what was sent leaves, and a cancellation is heard. Not a
 * timer, because those of hidden pages run once a second.
 */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => {
      port1.close()
      resolve()
    }
    port2.postMessage(null)
  })
}
