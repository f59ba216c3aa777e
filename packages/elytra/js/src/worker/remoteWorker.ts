/**
 * A remote worker: it connects to a node, has tasks computed, and returns results.
 *
 *   hello -> welcome -> credit -> task -> GET input -> renew … -> partial -> ack -> credit -> …
 *
 * It has a task for each compute thread, and one more, whose input it fetches meanwhile. It runs where the
 * connection is not held up: kernels run in compute workers (`ComputePool`). Leases are renewed by
 * what arrives and by reports of those workers alone, never by a timer: the node measures all times.
 */

import { SennitError } from '../errors.ts'
import { Attempt, ENGINE, type AttemptEvents, type AttemptParts } from './attempt.ts'
import { ByteBudget } from './byteBudget.ts'
import type { OpenFrame, StartCompute } from './channel.ts'
import { ComputePool } from './computePool.ts'
import { hasFunctions } from './functions.ts'
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
import { InputBuffers } from './inputBuffers.ts'
import { InputCache, type InputStore } from './inputCache.ts'
import { NodeRequests } from './nodeRequests.ts'
import { startCompute } from './startCompute.ts'
import { defaultThreads, THREADS_MAX } from './threadCount.ts'

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
/** Between two messages about one attempt. */
const RENEW_MS = 200
/** The same for each attempt that there is: a node closes connections that send 200 messages in a second. */
const RENEW_SPREAD_MS = 10
/** Of inputs in memory, for each task that a worker may have; a larger one is there alone. */
const INPUT_BYTES = 64 << 20
/** The largest input, unless the worker's owner chooses otherwise. */
const THREAD_BYTES = 512 << 20
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
  /** Starts a thread that computes; a Web Worker by default. */
  startCompute?: StartCompute
  /** Tasks that are computed at the same time, 1 to 63; one less than the machine has cores by default. */
  threads?: number
  /** The largest input of a task; those over a larger one are rejected. 512 MiB by default. */
  threadBytes?: number
  /** Opens frames for functions of others, if `allowFunctions` was called; only a page has some. */
  openFrame?: OpenFrame
}

/** What a worker does. */
export interface WorkerState {
  connected: boolean
  /** Tasks that can be computed at the same time. */
  threads: number
  /** Tasks that are computed now. */
  computing: number
  /** Tasks whose input is fetched, or will be. */
  fetching: number
  /** Tasks whose input is here, and that wait for a thread. */
  waiting: number
  done: number
  failed: number
  /** Rows that were read by kernels, and the time of that in seconds of one thread. */
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
  threads: 1,
  computing: 0,
  fetching: 0,
  waiting: 0,
  done: 0,
  failed: 0,
  rows: 0,
  seconds: 0,
  bytesIn: 0,
  bytesOut: 0,
  paused: null,
  ended: null,
}

/** One worker, with a task for each thread and one more. */
export class RemoteWorker {
  private readonly url: string
  private readonly requests: NodeRequests
  private readonly cache: InputCache | null
  private readonly pool: ComputePool
  private readonly parts: AttemptParts
  private socket: WebSocket | null = null
  /** Whether `hello` was sent on the socket: a node disconnects a worker whose first message is another. */
  private isGreeted = false
  private resumeSecret: string | null = null
  private stopped = false
  /** Those whose result is not there yet, in the order of their arrival. */
  private readonly attempts = new Map<string, Attempt>()
  /** Results that the node has not acknowledged. */
  private readonly results = new Map<string, FromWorker>()
  /** Tasks that this connection's node may still send. */
  private credits = 0
  private state: WorkerState
  private pauseMs = RETRY_MS
  private bytesMax = Infinity
  /** Whether functions of others are run. */
  private runsFunctions = false
  /** Settles when the worker was stopped, or the node does not admit it. */
  readonly ended: Promise<WorkerState>
  private end: (state: WorkerState) => void = () => undefined

  constructor(private readonly options: WorkerOptions) {
    this.url = (options.url ?? globalThis.location?.origin ?? '').replace(/\/+$/, '')
    const { inputs, inputBytesMax = 0 } = options
    this.cache = inputs ? new InputCache(inputs, inputBytesMax) : null
    const buffers = new InputBuffers()
    this.requests = new NodeRequests(this.url, options.token, this.cache, buffers)
    const threads = Math.min(THREADS_MAX, Math.max(1, options.threads ?? defaultThreads()))
    this.state = { ...INITIAL_STATE, threads }
    this.pool = new ComputePool(
      options.startCompute ?? startCompute,
      threads,
      options.openFrame ?? null,
    )
    this.parts = {
      requests: this.requests,
      pool: this.pool,
      memory: new ByteBudget(INPUT_BYTES * (threads + 1)),
      buffers,
      inputBytesMax: options.threadBytes ?? THREAD_BYTES,
      inlineBytesMax: 0, // until the node's `welcome`
    }
    this.ended = new Promise((resolve) => (this.end = resolve))
  }

  /** Connect, and compute tasks until it is stopped. */
  start(): this {
    // The handshake waits for the node, and the threads start meanwhile.
    this.connect()
    this.pool.open()
    return this
  }

  /** Finish the tasks that are here, and take no others until `resume`. */
  pause(reason: string): void {
    if (this.state.paused === null) this.send({ word: 'drain' })
    this.credits = 0
    this.change({ paused: reason })
  }

  /** Take tasks again, unless the cap of bytes is reached. */
  resume(): void {
    if (this.isOverCap(0)) return this.pause(DATA_CAP)
    this.change({ paused: null })
    this.offer()
  }

  /** Compute for a share of the time of each thread, from 0 (exclusive) to 1. */
  limit(share: number): void {
    this.pool.limit(share)
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

  /** Run functions of others, or stop those that run; the node hears of it by another connection. */
  allowFunctions(allowed: boolean): void {
    const runs = allowed && this.options.openFrame !== undefined
    if (runs === this.runsFunctions) return
    this.runsFunctions = runs
    if (!runs)
      for (const { task, control } of this.attempts.values())
        if (hasFunctions(task.spec.plan)) control.abort()
    if (this.isGreeted) this.socket?.close()
  }

  /** Finish the tasks that are here, without taking others; then disconnect. */
  drain(): void {
    this.stopped = true
    this.send({ word: 'drain' })
    this.offer()
  }

  /** Disconnect at once; the node gives its tasks to others. */
  stop(): void {
    this.stopped = true
    this.close('stopped')
  }

  private get isIdle(): boolean {
    return this.attempts.size === 0 && this.results.size === 0
  }

  private connect(): void {
    const address = `${this.url.replace(/^http/, 'ws')}/api/workers`
    const socket = new WebSocket(address, [SUBPROTOCOL, `sennit-token.${this.options.token}`])
    socket.binaryType = 'arraybuffer'
    this.socket = socket
    // During the handshake: the browser's storage takes as long to open.
    const cached = this.cache?.objects() ?? Promise.resolve([])
    socket.onopen = () => void this.greet(socket, cached)
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
    this.credits = 0
    this.isGreeted = false
    if (code !== ABNORMAL || this.state.connected) return this.disconnected(code)
    void this.requests
      .isRefused()
      .then((refused) => this.disconnected(refused ? NOT_ADMITTED : code))
  }

  private async greet(socket: WebSocket, objects: Promise<string[]>): Promise<void> {
    const cached = await objects
    if (this.socket !== socket) return // it was lost meanwhile
    this.isGreeted = true
    this.send({
      word: 'hello',
      version: VERSION,
      engine: ENGINE,
      kind: this.options.kind ?? 'tab',
      threads: this.pool.size,
      cached,
      resume: this.resumeSecret,
      attempts: [...this.attempts.keys(), ...this.results.keys()],
      functions: this.runsFunctions,
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
    this.pool.close()
    for (const { control } of this.attempts.values()) control.abort()
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
    this.parts.inlineBytesMax = welcome.inlineBytesMax
    this.resumeSecret = welcome.resume
    this.pauseMs = RETRY_MS
    for (const attempt of [...this.results.keys(), ...this.attempts.keys()])
      if (!welcome.attempts.includes(attempt)) this.drop(attempt)
    this.change({ connected: true })
    for (const result of this.results.values()) this.send(result)
    this.offer()
  }

  /** The node does not want the result of an attempt. */
  private drop(attempt: string): void {
    this.results.delete(attempt)
    this.attempts.get(attempt)?.control.abort()
  }

  /** Give the node credit for as many tasks as there is room for; a stopped worker ends here. */
  private offer(): void {
    if (this.stopped) return this.isIdle ? this.close('stopped') : undefined
    if (!this.state.connected || this.state.paused !== null) return
    // One more than threads: its input is fetched while they compute.
    const n = this.pool.size + 1 - this.attempts.size - this.results.size - this.credits
    if (n <= 0) return
    this.credits += n
    this.send({ word: 'credit', n })
  }

  private async work(task: Task): Promise<void> {
    const { attempt: id } = task
    // Without credit only what was under way when the worker paused.
    const isTooMany = this.attempts.size + this.results.size > this.pool.size
    if (isTooMany || this.attempts.has(id)) return this.socket?.close()
    this.credits = Math.max(0, this.credits - 1)
    const attempt = new Attempt(task)
    const { signal } = attempt.control
    let result: FromWorker
    try {
      this.checkCap(attempt)
      if (!this.runsFunctions && hasFunctions(task.spec.plan))
        throw new SennitError('this worker runs no functions of others', { code: 'unavailable' })
      this.attempts.set(id, attempt)
      this.count()
      result = await attempt.result(this.parts, this.events(attempt))
      this.change({ done: this.state.done + 1 })
    } catch (error) {
      const code = error instanceof SennitError ? error.code : 'internal'
      result = { word: 'failed', attempt: id, code, message: String(error).slice(0, 500) }
      // The task is not at fault: the token has expired, or was revoked.
      if (error instanceof SennitError && error.status === 401) this.close(refusal(NOT_ADMITTED))
      else if (!signal.aborted) this.change({ failed: this.state.failed + 1 })
    }
    this.attempts.delete(id)
    if (this.attempts.size === 0) this.parts.buffers.clear()
    this.count()
    if (!signal.aborted && this.state.ended === null) {
      this.results.set(id, result)
      this.send(result)
    }
    const { broken } = this.pool
    if (broken !== null) this.close(`the compute worker does not start: ${broken}`)
    this.offer()
  }

  private events(attempt: Attempt): AttemptEvents {
    return {
      received: (bytes) => {
        this.change({ bytesIn: this.state.bytesIn + bytes })
        this.progressed(attempt)
      },
      moved: () => this.count(),
      computed: (rows, seconds) => {
        this.change({ rows: this.state.rows + rows, seconds: this.state.seconds + seconds })
        this.progressed(attempt)
      },
      sent: (bytes) => {
        this.change({ bytesOut: this.state.bytesOut + bytes })
        if (this.isOverCap(0)) this.pause(DATA_CAP)
      },
    }
  }

  private count(): void {
    const count = { queued: 0, fetching: 0, waiting: 0, computing: 0, sending: 0 }
    for (const { phase } of this.attempts.values()) count[phase] += 1
    const { queued, fetching, waiting, computing } = count
    this.change({ fetching: queued + fetching, waiting, computing })
  }

  /** A task that would exceed the cap, with the inputs that are still to come, goes back to the node. */
  private checkCap({ task }: Attempt): void {
    let expected = task.inputBytes
    for (const { bytesExpected } of this.attempts.values()) expected += bytesExpected
    if (!this.isOverCap(expected)) return
    this.pause(DATA_CAP)
    throw new SennitError('the input exceeds what this worker may receive', { code: 'unavailable' })
  }

  private isOverCap(more: number): boolean {
    const total = this.state.bytesIn + this.state.bytesOut
    return more > 0 ? total + more > this.bytesMax : total >= this.bytesMax
  }

  /** Renew the lease of an attempt that has come further, and of those that wait behind it. */
  private progressed(attempt: Attempt): void {
    this.renew(attempt)
    for (const other of this.attempts.values()) {
      // Not those that are fetched or sent: a request that hangs must not be renewed by others.
      if (other === attempt || (other.phase !== 'queued' && other.phase !== 'waiting')) continue
      other.progress += 1
      this.renew(other)
    }
  }

  /** Say that an attempt has come further, but not more often than needed. */
  private renew(attempt: Attempt): void {
    const now = performance.now()
    const between = Math.max(RENEW_MS, RENEW_SPREAD_MS * this.attempts.size)
    if (attempt.renewedAt !== 0 && now - attempt.renewedAt < between) return
    attempt.renewedAt = now
    this.send({ word: 'renew', attempt: attempt.task.attempt, bytesDone: attempt.progress })
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
