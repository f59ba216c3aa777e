#!/usr/bin/env -S node --experimental-websocket --no-warnings
/** `npx @sennit/elytra worker URL`: a remote worker in Node; the token is in SENNIT_TOKEN. */

import { availableParallelism } from 'node:os'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { RemoteWorker } from './worker/remoteWorker.ts'
import { nodeInputs } from './worker/nodeInputs.ts'
import { startNodeCompute } from './worker/startNodeCompute.ts'
import { THREADS_MAX } from './worker/threadCount.ts'

const USAGE = `usage: npx @sennit/elytra worker URL [--threads N] [--thread-memory MIB]

Compute tasks for the node at URL, until Ctrl-C. The variable SENNIT_TOKEN has a token of
\`platform workers invite\`. With SENNIT_INPUTS, a folder, inputs are kept there for later tasks, at most
SENNIT_INPUT_BYTES (1 GiB by default).

  --threads N          tasks computed at the same time, 1 to ${THREADS_MAX}; by default one less than there are
                       processors
  --thread-memory MIB  of a task's input, and of what its thread makes of it, 16 to 65536; larger tasks are
                       computed by the node (512)`
/** Of inputs that are kept. */
const INPUT_BYTES = 2 ** 30

interface Arguments {
  url: string
  threads: number
  threadBytes: number
}

/**
 * Read the words of the command.
 *
 * @throws Error what is wrong with them.
 */
function read(words: readonly string[]): Arguments {
  const options = { threads: { type: 'string' }, 'thread-memory': { type: 'string' } } as const
  const { positionals, values } = parseArgs({
    args: [...words],
    options,
    allowPositionals: true,
  })
  const [verb, url, ...rest] = positionals
  if (verb !== 'worker' || url === undefined || rest.length > 0)
    throw new Error('the words are `worker URL`')
  if (!/^https?:\/\//.test(url)) throw new Error(`${url} begins with neither http:// nor https://`)
  const most = Math.min(THREADS_MAX, Math.max(1, availableParallelism() - 1))
  return {
    url,
    threads: whole('--threads', values.threads, most, 1, THREADS_MAX),
    threadBytes: whole('--thread-memory', values['thread-memory'], 512, 16, 65_536) * 2 ** 20,
  }
}

function whole(
  name: string,
  text: string | undefined,
  otherwise: number,
  min: number,
  max: number,
): number {
  const value = text === undefined ? otherwise : Number(text)
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw new Error(`${name} is ${text}, not a whole number from ${min} to ${max}`)
}

async function main(words: readonly string[]): Promise<number> {
  const token = process.env.SENNIT_TOKEN
  let found: Arguments
  try {
    found = read(words)
  } catch (error) {
    process.stderr.write(`error: ${(error as Error).message}\n\n${USAGE}\n`)
    return 2
  }
  const { url, threads, threadBytes } = found
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
    threads,
    threadBytes,
    startCompute: startNodeCompute(threadBytes),
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
