/** Starts the compute worker in Node. */

import { Worker } from 'node:worker_threads'

import type { StartCompute } from './channel.ts'

/**
 * Start threads from the file `computeNode.js` of this package.
 *
 * @param heapBytesMax of what a kernel makes, as its groups: a thread that needs more ends, and its task fails.
 */
export const startNodeCompute =
  (heapBytesMax: number): StartCompute =>
  (onMessage, onEnd) => {
    const resourceLimits = { maxOldGenerationSizeMb: Math.ceil(heapBytesMax / 2 ** 20) }
    const thread = new Worker(new URL('./computeNode.js', import.meta.url), { resourceLimits })
    thread.on('message', onMessage)
    thread.on('error', (error) => onEnd(String(error)))
    thread.on('exit', (code) => onEnd(`it ended with ${code}`))
    thread.unref() // the connection keeps the process
    return {
      // No frame's port is among them: a worker in Node runs no functions of others.
      post: (message, transfer) => thread.postMessage(message, transfer as ArrayBuffer[]),
      terminate: () => {
        thread.removeAllListeners()
        thread.on('error', () => undefined) // without a listener it would end the process
        void thread.terminate()
      },
    }
  }
