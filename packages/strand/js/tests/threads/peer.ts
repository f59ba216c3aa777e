/** A producer or a consumer in a thread of its own, as a Worker of a page would be. */

import { parentPort, workerData } from 'node:worker_threads'

import { StrandAbortError, StrandView, StrandWriter } from '../../src/index'

export interface PeerTask {
  role: 'producer' | 'consumer' | 'endless'
  buffer: SharedArrayBuffer
  count: number
}

/** What record number `n` holds; both sides know. */
export function recordOf(n: number): [number, string, number[]] {
  return [n, `label ${n % 97} `.repeat(n % 4), Array.from({ length: n % 5 }, (_, at) => n + at)]
}

function produce({ buffer, count }: PeerTask): void {
  const writer = new StrandWriter(buffer)
  writer.begin()
  for (let from = 0; from < count; from += 100)
    writer.writeRecordBatch(
      Array.from({ length: Math.min(100, count - from) }, (_, at) => recordOf(from + at)),
    )
  writer.finalize()
}

/** Read to the end; the number of records that are what they should be. */
function consume({ buffer }: PeerTask): number {
  const view = new StrandView(buffer)
  const cursor = view.allocateCursor()
  parentPort!.postMessage('attached')
  let right = 0
  for (let seq = 0, count = 0; ; seq = count) {
    count = view.waitForCommitSync(seq)
    if (count === seq) return right
    for (; seq < count; seq += 1) {
      cursor.seek(seq)
      const [id, label, samples] = recordOf(seq)
      const same = [...cursor.getI32Array('samples')!].join() === samples.join()
      if (cursor.getU32('id') === id && cursor.getString('label') === label && same) right += 1
    }
    view.acknowledgeRead(count)
  }
}

/** Write until a consumer signals abort; the reason of the error. */
function produceForever({ buffer }: PeerTask): string {
  const writer = new StrandWriter(buffer)
  try {
    for (let n = 0; ; n += 1) writer.write(recordOf(n))
  } catch (error) {
    writer.abort('told to stop')
    return error instanceof StrandAbortError ? error.reason : String(error)
  }
}

if (parentPort !== null) {
  const task = workerData as PeerTask
  if (task.role === 'producer') produce(task)
  else parentPort.postMessage(task.role === 'consumer' ? consume(task) : produceForever(task))
}
