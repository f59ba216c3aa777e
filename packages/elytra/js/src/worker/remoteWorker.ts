/**
 * A remote worker: it connects to a node, has tasks computed, and returns results.
 *
 *   hello -> welcome -> credit -> task -> GET input -> renew … -> partial -> ack -> credit -> …
 *
 * It runs where the connection is not held up: kernels run in a compute worker (`ComputeThread`). The
 * lease is renewed by reports of that worker alone, never by a timer: the node measures all times.
 */

import { SennitError } from '../errors.ts'
import { planHash } from '../plan/canonical.ts'
import { sha256Hex } from '../uploads/sha256.ts'
import type { StartCompute } from './channel.ts'
import { ComputeThread } from './computeThread.ts'
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
import { InputCache, type InputStore } from './inputCache.ts'
import { NodeRequests } from './nodeRequests.ts'
import { startCompute } from './startCompute.ts'

/** The engine's version: the states of aggregates have no other format. */
export const ENGINE = 'sennit-js 0.1.0'

/** After these a connection would be refused again. */
const FINAL = new Map([
  [4400, 'the node has refused a message'],
  [4403, 'the token is not admitted'],
  [4406, 'the node has another version of the protocol'],
  [4426, 'the node has another version of the engine'],
])
const NOT_ADMITTED = 4403
/** The close code of a connection that ended without one. */
const ABNORMAL = 1006
const RETRY_MS = 500
const RETRY_MAX_MS = 15_000
/** Between two messages about one attempt: a node closes connections that send 200 in a second. */
const RENEW_MS = 200
/** Of the lease, in which the compute worker has to report: before the node gives the task to others. */
const SILENCE_SHARE = 0.7
/** The reason of a pause that the worker makes by itself. */
export const DATA_CAP = 'data cap'

/** Why a node refuses a worker for good, by the close code. */
function refusal(code: number): string {
  return `${FINAL.get(code) ?? 'the connection was closed'} (${code})`
}

export interface WorkerOptions {
  /** The node's address; the page's own origin by default. */
  url?: string
  /** A token with the role `worker`: `platform workers invite` makes one. */
  token: string
  /** What `platform workers` shows. */
  kind?: string
  onChange?: (state: WorkerState) => void
  /** Where inputs are kept for later tasks, and how many bytes of them; nowhere by default. */
  inputs?: InputStore | null
  inputBytesMax?: number
  /** Starts the thread that computes; a Web Worker by default. */
  startCompute?: StartCompute
}

/** What a worker does. */
export interface WorkerState {
  connected: boolean
  /** Tasks that are computed now. */
  computing: number
  done: number
  failed: number
  /** Rows that were read by kernels, and the time of that in seconds. */
  rows: number
  seconds: number
  /** Bytes of inputs and of results. */
  bytesIn: number
  bytesOut: number
  /** Why it wants no tasks at present, or null. */
  paused: string | null
  /** Why it has ended for good, or null. */
  ended: string | null
}

/** Of a worker that has not connected yet. */
export const INITIAL_STATE: WorkerState = {
  connected: false,
  computing: 0,
  done: 0,
  failed: 0,
  rows: 0,
  seconds: 0,
  bytesIn: 0,
  bytesOut: 0,
  paused: null,
  ended: null,
}

/** The task that is computed. */
interface Running {
  task: Task
  /** Aborted when the node does not want the result any more. */
  control: AbortController
  renewedAt: number
}

/** One worker with one task at a time. */
export class RemoteWorker {
  private readonly url: string
  private readonly requests: NodeRequests
  private readonly cache: InputCache | null
  private readonly thread: ComputeThread
  private socket: WebSocket | null = null
  /** Whether `hello` was sent on the socket: a node disconnects a worker whose first message is another. */
  private isGreeted = false
  private resumeSecret: string | null = null
  private limits: Welcome | null = null
  private stopped = false
  private running: Running | null = null
  /** Results that the node has not acknowledged. */
  private readonly results = new Map<string, FromWorker>()
  /** Whether this connection's node may send a task. */
  private hasCredit = false
  private state: WorkerState = INITIAL_STATE
  private pauseMs = RETRY_MS
  private bytesMax = Infinity
  /** Settles when the worker was stopped, or the node does not admit it. */
  readonly ended: Promise<WorkerState>
  private end: (state: WorkerState) => void = () => undefined

  constructor(private readonly options: WorkerOptions) {
    this.url = (options.url ?? globalThis.location?.origin ?? '').replace(/\/+$/, '')
    const { inputs, inputBytesMax = 0 } = options
    this.cache = inputs ? new InputCache(inputs, inputBytesMax) : null
    this.requests = new NodeRequests(this.url, options.token, this.cache)
    this.thread = new ComputeThread(options.startCompute ?? startCompute)
    this.ended = new Promise((resolve) => (this.end = resolve))
  }

  /** Connect, and compute tasks until it is stopped. */
  start(): this {
    this.thread.open()
    this.connect()
    return this
  }

  /** Finish the task that is computed, and take no others until `resume`. */
  pause(reason: string): void {
    if (this.state.paused === null) this.send({ word: 'drain' })
    this.hasCredit = false
    this.change({ paused: reason })
  }

  /** Take tasks again, unless the cap of bytes is reached. */
  resume(): void {
    if (this.isOverCap(0)) return this.pause(DATA_CAP)
    this.change({ paused: null })
    this.offer()
  }

  /** Compute for a share of the time, from 0 (exclusive) to 1. */
  limit(share: number): void {
    this.thread.limit(share)
  }

  /** Pause when this many bytes were received and sent. */
  limitBytes(bytesMax: number): void {
    this.bytesMax = bytesMax
    if (this.isOverCap(0)) this.pause(DATA_CAP)
    else if (this.state.paused === DATA_CAP) this.resume()
  }

  /** Keep at most this many bytes of inputs for later tasks. */
  limitInputs(bytesMax: number): void {
    void this.cache?.limit(bytesMax)
  }

  /** Finish the task that is computed, without taking others; then disconnect. */
  drain(): void {
    this.stopped = true
    this.send({ word: 'drain' })
    this.offer()
  }

  /** Disconnect at once; the node gives its task to others. */
  stop(): void {
    this.stopped = true
    this.close('stopped')
  }

  private get isIdle(): boolean {
    return this.running === null && this.results.size === 0
  }

  private connect(): void {
    const address = `${this.url.replace(/^http/, 'ws')}/api/workers`
    const socket = new WebSocket(address, [SUBPROTOCOL, `sennit-token.${this.options.token}`])
    socket.binaryType = 'arraybuffer'
    this.socket = socket
    socket.onopen = () => void this.greet(socket)
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
    this.hasCredit = false
    this.isGreeted = false
    if (code !== ABNORMAL || this.state.connected) return this.disconnected(code)
    void this.requests
      .isRefused()
      .then((refused) => this.disconnected(refused ? NOT_ADMITTED : code))
  }

  private async greet(socket: WebSocket): Promise<void> {
    const cached = (await this.cache?.objects()) ?? []
    if (this.socket !== socket) return // it was lost meanwhile
    const { running } = this
    this.isGreeted = true
    this.send({
      word: 'hello',
      version: VERSION,
      engine: ENGINE,
      kind: this.options.kind ?? 'tab',
      threads: 1,
      cached,
      resume: this.resumeSecret,
      attempts: [...(running ? [running.task.attempt] : []), ...this.results.keys()],
    })
  }

  private disconnected(code: number): void {
    this.change({ connected: false })
    if (FINAL.has(code)) this.close(refusal(code))
    if (this.state.ended !== null) return
    if (this.stopped && this.isIdle) return this.close('stopped')
    setTimeout(() => this.state.ended === null && this.connect(), this.pauseMs)
    this.pauseMs = Math.min(RETRY_MAX_MS, 2 * this.pauseMs)
  }

  private close(reason: string): void {
    if (this.state.ended !== null) return
    this.change({ ended: reason })
    this.running?.control.abort()
    this.thread.close()
    this.socket?.close()
    this.end(this.state)
  }

  private receive(message: FromNode): void {
    switch (message.word) {
      case 'welcome':
        return this.welcomed(message)
      case 'task':
        this.hasCredit = false
        return void this.work(message)
      case 'cancel':
        this.drop(message.attempt)
        return this.offer()
      case 'ack':
        this.results.delete(message.attempt)
        return this.offer()
      case 'drain':
        return // the node closes the connection next
    }
  }

  private welcomed(welcome: Welcome): void {
    this.limits = welcome
    this.resumeSecret = welcome.resume
    this.pauseMs = RETRY_MS
    const { running } = this
    for (const attempt of [...this.results.keys(), ...(running ? [running.task.attempt] : [])])
      if (!welcome.attempts.includes(attempt)) this.drop(attempt)
    this.change({ connected: true })
    for (const result of this.results.values()) this.send(result)
    this.offer()
  }

  /** The node does not want the result of an attempt. */
  private drop(attempt: string): void {
    this.results.delete(attempt)
    const { running } = this
    if (running?.task.attempt !== attempt) return
    running.control.abort()
    this.thread.cancel()
  }

  /** Give the node credit for one task, if there is none; a stopped worker ends here. */
  private offer(): void {
    if (!this.isIdle) return
    if (this.stopped) return this.close('stopped')
    if (!this.state.connected || this.state.paused !== null || this.hasCredit) return
    this.hasCredit = true
    this.send({ word: 'credit', n: 1 })
  }

  private async work(task: Task): Promise<void> {
    if (this.running) return this.socket?.close() // there was no credit for it
    const { attempt } = task
    const control = new AbortController()
    this.running = { task, control, renewedAt: 0 }
    this.change({ computing: 1 })
    let result: FromWorker
    try {
      result = await this.result(this.running)
      this.change({ done: this.state.done + 1 })
    } catch (error) {
      const code = error instanceof SennitError ? error.code : 'internal'
      result = { word: 'failed', attempt, code, message: String(error).slice(0, 500) }
      // The task is not at fault: the token has expired, or was revoked.
      if (error instanceof SennitError && error.status === 401) this.close(refusal(NOT_ADMITTED))
      else if (!control.signal.aborted) this.change({ failed: this.state.failed + 1 })
    }
    this.running = null
    this.change({ computing: 0 })
    if (!control.signal.aborted && this.state.ended === null) {
      this.results.set(attempt, result)
      this.send(result)
    }
    if (this.thread.broken !== null)
      this.close(`the compute worker does not start: ${this.thread.broken}`)
    this.offer()
  }

  private async result(running: Running): Promise<FromWorker> {
    const { task, control } = running
    const { attempt, spec, inputSha256, schema } = task
    if ((await planHash(spec.plan)) !== task.planHash)
      throw new SennitError('the plan has another hash', { code: 'bad-input' })
    this.checkCap(task)
    let received = 0
    const input = await this.requests.input(task, control.signal, (bytes) => {
      this.change({ bytesIn: this.state.bytesIn + bytes - received })
      received = bytes
      this.renew(running, bytes)
    })
    control.signal.throwIfAborted()
    const silenceSeconds = SILENCE_SHARE * task.leaseSeconds
    const { rows, seconds } = this.state
    const began = performance.now()
    const passed = (done: number): void =>
      this.change({ rows: rows + done, seconds: seconds + (performance.now() - began) / 1000 })
    const made = await this.thread.run(
      { plan: spec.plan, schema, input, silenceSeconds },
      (done) => {
        passed(done)
        this.renew(running, received + done)
      },
    )
    passed(made.rows)
    const sha256 = await sha256Hex(made.data)
    const isInline = made.data.length <= (this.limits?.inlineBytesMax ?? 0)
    if (!isInline) await this.requests.upload(task, made.data, sha256, control.signal)
    this.change({ bytesOut: this.state.bytesOut + made.data.length })
    if (this.isOverCap(0)) this.pause(DATA_CAP)
    return {
      word: 'partial',
      attempt,
      planHash: task.planHash,
      inputSha256,
      engine: ENGINE,
      sha256,
      data: isInline ? made.data : null,
    }
  }

  /** A task that would exceed the cap goes back to the node. */
  private checkCap(task: Task): void {
    if (!this.isOverCap(task.inputBytes)) return
    this.pause(DATA_CAP)
    throw new SennitError('the input exceeds what this worker may receive', { code: 'unavailable' })
  }

  private isOverCap(more: number): boolean {
    const total = this.state.bytesIn + this.state.bytesOut
    return more > 0 ? total + more > this.bytesMax : total >= this.bytesMax
  }

  /** Say that an attempt has come further, but not more often than needed. */
  private renew(running: Running, bytesDone: number): void {
    const now = performance.now()
    if (running.renewedAt !== 0 && now - running.renewedAt < RENEW_MS) return
    running.renewedAt = now
    this.send({ word: 'renew', attempt: running.task.attempt, bytesDone })
  }

  private send(message: FromWorker): void {
    if (this.isGreeted && this.socket?.readyState === WebSocket.OPEN)
      this.socket.send(encode(message))
  }

  private change(change: Partial<WorkerState>): void {
    this.state = { ...this.state, ...change }
    this.options.onChange?.(this.state)
  }
}
