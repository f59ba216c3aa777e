/** The compute worker in Node: a thread of `node:worker_threads`. */

import { parentPort } from 'node:worker_threads'

import type { ToCompute } from './channel.ts'
import { serveCompute } from './computeLoop.ts'

if (!parentPort) throw new Error('this module is the entry of a worker thread')
const port = parentPort
const receive = serveCompute((message, transfer) => port.postMessage(message, transfer))
port.on('message', (message: ToCompute) => receive(message))
