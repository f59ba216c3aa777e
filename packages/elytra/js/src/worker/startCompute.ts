/** Starts the compute worker of a page. */

import { UsageError } from '../errors.ts'
import type { StartCompute } from './channel.ts'

/**
 * Start a compute worker from the file `computeWorker.js` of this package.
 *
 * Bundlers recognise `new URL('./computeWorker.js', import.meta.url)` and put the worker's code into a
 * file of its own, whose response has to allow `script-src 'unsafe-eval'`.
 *
 * @throws UsageError where there is no `Worker`.
 */
export const startCompute: StartCompute = (onMessage, onEnd) => {
  if (typeof Worker === 'undefined')
    throw new UsageError(
      'this runtime has no Worker',
      'in Node, run `npx @sennit/elytra worker URL`',
    )
  const worker = new Worker(
    /* webpackChunkName: "compute" */ new URL('./computeWorker.js', import.meta.url),
    { type: 'module' },
  )
  worker.onmessage = ({ data }) => onMessage(data)
  worker.onerror = (event) => {
    event.preventDefault()
    onEnd(event.message || 'its script cannot be loaded')
  }
  return {
    post: (message, transfer) => worker.postMessage(message, transfer),
    terminate: () => worker.terminate(),
  }
}
