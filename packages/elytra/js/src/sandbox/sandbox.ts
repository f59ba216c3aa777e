/** A running sandbox, from outside: one request at a time, with a limit of time. */

import { SennitError, Unsupported } from '../errors.ts'
import type { FunctionText } from './functionText.ts'
import { frame, threadCode, workerCode } from './guest.ts'
import { hiddenFrame } from './servedFrame.ts'
import type { Call, FromSandbox, Limits, Packed, ToGuest } from './messages.ts'

/** How a function has failed in one batch. */
export class FunctionFailed extends SennitError {
  constructor(
    readonly reason: string,
    readonly row: number | null,
    readonly column: string | null,
  ) {
    super(reason, { code: 'step-failed' })
  }
}

/** What calls the function: a frame, or a thread. */
export interface SandboxPort {
  post(message: ToGuest, buffers: ArrayBuffer[]): void
  /** End the thread, also one in an endless loop. */
  close(): void
}

/** Starts a sandbox with the code of `workerCode`; its first message is `ready`. */
export type OpenSandbox = (
  code: string,
  limits: Limits,
  receive: (message: FromSandbox) => void,
) => SandboxPort

const START_MS = 10_000

/** Calls one function; `close` ends it. */
export class Sandbox {
  private port: SandboxPort | null = null
  private settle: ((message: FromSandbox) => void) | null = null
  private readonly early: FromSandbox[] = []

  private constructor(private readonly limits: Limits) {}

  /**
   * Start a sandbox: an opaque-origin frame in a page, a thread in Node.
   *
   * @param open starts another one: a worker of a page has no document, and asks the page for a frame.
   * @throws Unsupported where there is neither, or the page's policy forbids the frame.
   */
  static async start(
    fn: FunctionText,
    call: Call,
    limits: Limits,
    open?: OpenSandbox,
  ): Promise<Sandbox> {
    const sandbox = new Sandbox(limits)
    const receive = (message: FromSandbox): void => sandbox.receive(message)
    if (open || typeof document !== 'undefined') {
      sandbox.port = (open ?? openFrame)(workerCode(fn, call), limits, receive)
      const started = await sandbox.next(START_MS)
      if (started?.kind !== 'ready') {
        sandbox.close()
        throw new Unsupported(
          'the page cannot start a sandbox for functions',
          'its Content-Security-Policy has to allow inline scripts in frames, and workers of blob:',
        )
      }
    } else {
      sandbox.port = openThread(threadCode(fn, call), receive)
    }
    return sandbox
  }

  /**
   * The columns that the function returns for a message.
   *
   * @throws FunctionFailed if it throws or returns something else; SennitError beyond a limit.
   */
  async ask(message: ToGuest): Promise<Packed[]> {
    if (!this.port) throw new SennitError('the sandbox is closed', { code: 'closed' })
    const columns = message.kind === 'rows' ? message.columns : []
    this.port.post(message, columns.flatMap(buffersOf))
    const answer = await this.next(this.limits.secondsMax * 1000)
    if (answer?.kind === 'rows') return this.bounded(answer.columns)
    if (answer?.kind === 'failed')
      throw new FunctionFailed(answer.reason, answer.row, answer.column)
    this.close()
    if (answer?.kind === 'ended') throw new SennitError(answer.reason, { code: answer.code })
    throw new SennitError(`it ran longer than ${this.limits.secondsMax} s for a batch of rows`, {
      code: 'deadline-exceeded',
      hint: 'end its loop, or raise secondsMax of opaque',
    })
  }

  /** A thread of Node has no frame around it that counts. */
  private bounded(columns: Packed[]): Packed[] {
    const { outputBytesMax } = this.limits
    const buffers = columns.flatMap(buffersOf)
    if (buffers.reduce((total, { byteLength }) => total + byteLength, 0) <= outputBytesMax)
      return columns
    this.close()
    const reason = `it returned more than ${outputBytesMax} bytes for a batch`
    throw new SennitError(reason, { code: 'too-large' })
  }

  close(): void {
    this.port?.close()
    this.port = null
  }

  private receive(message: FromSandbox): void {
    if (this.settle) this.settle(message)
    else if (this.early.length < 2) this.early.push(message)
  }

  /** The next message, or null if none came in time. */
  private next(milliseconds: number): Promise<FromSandbox | null> {
    const [found] = this.early.splice(0, 1)
    if (found) return Promise.resolve(found)
    return new Promise((resolve) => {
      const end = (message: FromSandbox | null): void => {
        clearTimeout(timer)
        this.settle = null
        resolve(message)
      }
      const timer = setTimeout(() => end(null), milliseconds)
      this.settle = end
    })
  }
}

/** The buffers of a column, to be transferred. */
function buffersOf({ values, ends, nulls }: Packed): ArrayBuffer[] {
  return [values, ends, nulls].filter((each) => each !== null)
}

/**
 * A frame with an origin of its own, so that it has no cookies, storage or access to the page. Its
 * policy forbids every request; the worker in it inherits that, and has no document to leak through.
 */
function openFrame(
  code: string,
  limits: Limits,
  receive: (message: FromSandbox) => void,
): SandboxPort {
  const nonce = crypto.getRandomValues(new Uint32Array(4)).join('')
  const policy =
    `default-src 'none'; script-src 'nonce-${nonce}'; worker-src blob:; ` +
    `base-uri 'none'; form-action 'none'`
  const element = hiddenFrame()
  element.srcdoc =
    `<!doctype html><meta http-equiv="Content-Security-Policy" content="${policy}">` +
    `<script nonce="${nonce}">(${frame})()</script>`
  const { port1, port2 } = new MessageChannel()
  port1.onmessage = ({ data }: MessageEvent<FromSandbox>) => receive(data)
  element.onload = () => {
    element.onload = null // a document that follows this one gets no port
    const { outputBytesMax } = limits
    // An opaque origin has no name to send to.
    element.contentWindow?.postMessage({ code, outputBytesMax }, '*', [port2])
  }
  document.documentElement.append(element)
  return {
    post: (message, buffers) => port1.postMessage(message, buffers),
    close: () => {
      port1.close()
      element.remove()
    },
  }
}

const THREAD_MEBIBYTES = 512

/**
 * A thread of Node: it ends in time and has a limit of memory, but can use all of Node. It runs
 * only functions of this very program.
 */
function openThread(code: string, receive: (message: FromSandbox) => void): SandboxPort {
  // Not an import: bundlers for browsers would follow it.
  const threads = globalThis.process?.getBuiltinModule?.('node:worker_threads')
  if (!threads)
    throw new Unsupported(
      'functions that are called with rows need a page with a document, or Node 20.16',
      'call them in the page, or write them with expressions',
    )
  const limits = { maxOldGenerationSizeMb: THREAD_MEBIBYTES }
  const thread = new threads.Worker(code, { eval: true, env: {}, resourceLimits: limits })
  const ended = (reason: string): void => receive({ kind: 'ended', code: 'step-failed', reason })
  thread.on('message', receive)
  thread.on('error', (error: Error) => ended(String(error)))
  thread.on('exit', () => ended('its thread has ended'))
  return {
    post: (message, buffers) => thread.postMessage(message, buffers),
    close: () => void thread.terminate(),
  }
}
