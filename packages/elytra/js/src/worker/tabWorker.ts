/** A remote worker of a page, off the page's thread. */

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
  controls?: WorkerControls
  onChange?: (state: WorkerState) => void
}

/**
 * Starts an outer worker, which connects to the node that serves its script.
 *
 * @example new TabWorker({ token }).set({ share: 0.5 })
 */
export class TabWorker {
  private readonly worker: Worker
  state: WorkerState = INITIAL_STATE

  constructor(private readonly options: TabWorkerOptions) {
    const { script = '/runtime/outer.js', token, kind = 'tab', threads, controls = {} } = options
    this.worker = new Worker(script)
    this.worker.onmessage = ({ data }: MessageEvent<FromOuter>) => this.changed(data)
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
    this.post({ kind: 'set', controls })
  }

  /** Finish the tasks that are here, then disconnect. */
  drain(): void {
    this.post({ kind: 'drain' })
  }

  /** Disconnect at once; the node gives its tasks to others. */
  stop(): void {
    this.worker.terminate()
    if (this.state.ended === null)
      this.changed({ ...this.state, connected: false, computing: 0, ended: 'stopped' })
  }

  private post(message: ToOuter): void {
    this.worker.postMessage(message)
  }

  private changed(state: WorkerState): void {
    if (this.state.ended !== null) return
    this.state = state
    this.options.onChange?.(state)
    if (state.ended !== null) this.worker.terminate()
  }
}
