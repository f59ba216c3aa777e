/** A remote worker of a page, off the page's thread. */

import { openServedFrame, type ServedFrame } from '../sandbox/servedFrame.ts'
import type { FromOuter, ToOuter, WorkerControls } from './outerMessages.ts'
import { INITIAL_STATE, type WorkerState } from './remoteWorker.ts'

export interface TabWorkerOptions {
  /** A token with the role `worker`. */
  token: string
  /** What `platform workers` shows. */
  kind?: string
  /** Tasks that are computed at the same time; one less than the machine has cores by default. */
  threads?: number
  /** Where the node serves the outer worker; the compute worker is next to it. */
  script?: string
  /** Where the node serves the document of frames for functions of others. */
  frame?: string
  controls?: WorkerControls
  onChange?: (state: WorkerState) => void
}

/** A node gives a worker one task with functions at a time, which has at most four. */
const FRAMES_MAX = 8

/**
 * Starts an outer worker, which connects to the node that serves its script.
 *
 * @example new TabWorker({ token }).set({ share: 0.5 })
 */
export class TabWorker {
  private readonly worker: Worker
  private readonly frames = new Map<number, ServedFrame>()
  /** Checked here too: frames are opened by this page alone. */
  private runsFunctions = false
  state: WorkerState = INITIAL_STATE

  constructor(private readonly options: TabWorkerOptions) {
    const { script = '/runtime/outer.js', token, kind = 'tab', threads, controls = {} } = options
    this.runsFunctions = controls.functions === true
    this.worker = new Worker(script)
    this.worker.onmessage = ({ data }: MessageEvent<FromOuter>) => this.receive(data)
    this.worker.onerror = (event) => {
      event.preventDefault()
      const reason = `the worker has failed: ${event.message || `${script} cannot be loaded`}`
      this.changed({ ...this.state, connected: false, computing: 0, ended: reason })
    }
    const sized = threads === undefined ? {} : { threads }
    this.post({ kind: 'start', token, kindShown: kind, ...sized, controls })
  }

  /** Change limits, pause or continue. */
  set(controls: WorkerControls): void {
    this.runsFunctions = controls.functions ?? this.runsFunctions
    if (!this.runsFunctions) this.closeFrames()
    this.post({ kind: 'set', controls })
  }

  /** Finish the tasks that are here, then disconnect. */
  drain(): void {
    this.post({ kind: 'drain' })
  }

  /** Disconnect at once; the node gives its tasks to others. */
  stop(): void {
    this.worker.terminate()
    this.closeFrames()
    if (this.state.ended === null)
      this.changed({ ...this.state, connected: false, computing: 0, ended: 'stopped' })
  }

  private post(message: ToOuter, transfer: MessagePort[] = []): void {
    this.worker.postMessage(message, transfer)
  }

  private receive(message: FromOuter): void {
    if (!('kind' in message)) return this.changed(message)
    const { id } = message
    if (message.kind === 'frame-end') {
      this.frames.get(id)?.close()
      this.frames.delete(id)
      return
    }
    const { frame = '/runtime/sandbox.html' } = this.options
    if (!this.runsFunctions || this.frames.size >= FRAMES_MAX || this.frames.has(id))
      return this.post({ kind: 'frame', id, port: null })
    const opened = openServedFrame(frame, message.code, message.outputBytesMax)
    this.frames.set(id, opened)
    this.post({ kind: 'frame', id, port: opened.port }, [opened.port])
  }

  private closeFrames(): void {
    for (const frame of this.frames.values()) frame.close()
    this.frames.clear()
  }

  private changed(state: WorkerState): void {
    if (this.state.ended !== null) return
    this.state = state
    this.options.onChange?.(state)
    if (state.ended === null) return
    this.worker.terminate()
    this.closeFrames()
  }
}
