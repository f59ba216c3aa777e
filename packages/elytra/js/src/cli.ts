#!/usr/bin/env -S node --experimental-websocket --no-warnings
/** `npx @sennit/elytra worker URL`: a remote worker in Node; the token is in SENNIT_TOKEN. */

import process from 'node:process'
import { RemoteWorker } from './worker/remoteWorker.ts'
import { nodeInputs } from './worker/nodeInputs.ts'
import { startNodeCompute } from './worker/startNodeCompute.ts'

const USAGE = `usage: npx @sennit/elytra worker URL

Compute tasks for the node at URL, until Ctrl-C. The variable SENNIT_TOKEN has a token of
\`platform workers invite\`. With SENNIT_INPUTS, a folder, inputs are kept there for later tasks, at most
SENNIT_INPUT_BYTES (1 GiB by default).`
/** Of inputs that are kept. */
const INPUT_BYTES = 2 ** 30

async function main(words: readonly string[]): Promise<number> {
  const [verb, url, ...rest] = words
  const token = process.env.SENNIT_TOKEN
  if (verb !== 'worker' || url === undefined || rest.length > 0 || !/^https?:\/\//.test(url)) {
    process.stderr.write(`${USAGE}\n`)
    return 2
  }
  if (!token) {
    process.stderr.write(
      'error: SENNIT_TOKEN is not set\nhint: `platform workers invite` prints one\n',
    )
    return 2
  }
  const folder = process.env.SENNIT_INPUTS
  const inputBytesMax = Number(process.env.SENNIT_INPUT_BYTES ?? INPUT_BYTES)
  if (!Number.isSafeInteger(inputBytesMax) || inputBytesMax < 0) {
    process.stderr.write('error: SENNIT_INPUT_BYTES is not a number of bytes\n')
    return 2
  }
  let shown = ''
  const worker = new RemoteWorker({
    url,
    token,
    kind: 'node',
    startCompute: startNodeCompute,
    ...(folder ? { inputs: nodeInputs(folder), inputBytesMax } : {}),
    onChange: ({ connected, computing, done, failed }) => {
      const line = `${connected ? 'connected' : 'connecting'}: ${computing} computing, ${done} done, ${failed} failed`
      if (line !== shown) process.stderr.write(`${line}\n`)
      shown = line
    },
  })
  process.once('SIGINT', () => worker.drain())
  process.once('SIGTERM', () => worker.drain())
  const { ended } = await worker.start().ended
  if (ended === 'stopped') return 0
  process.stderr.write(`error: ${ended}\n`)
  return 1
}

process.exitCode = await main(process.argv.slice(2))
