/**
 * One view, two consumers, a producer in a Worker: the usage pattern of the library whose layout
 * version 5 this package shares, with its option names. In a project, import from '@sennit/strand'.
 */

import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'

import {
  buildSchema,
  computeStrandMap,
  initStrandHeader,
  StrandView,
  StrandWriter,
} from '../src/index.js'

export interface Outcome {
  labels: string[]
  scoreSum: number
  progress: number
}

const CATEGORIES = ['type-a', 'type-b']
const RECORDS = 30

/** Read `RECORDS` records from a ring of eight slots: one consumer lists labels, one adds scores. */
export async function readWithTwoConsumers(file: string): Promise<Outcome> {
  const map = computeStrandMap({
    schema: buildSchema([
      { name: 'id', type: 'u32' },
      { name: 'score', type: 'f32' },
      { name: 'category', type: 'utf8_ref' },
      { name: 'label', type: 'utf8' },
    ]),
    index_capacity: 8,
    heap_capacity: 1024,
    query: { assembly: 'v1', start: 0, end: 1_000_000 },
    estimated_records: RECORDS,
  })
  const buffer = new SharedArrayBuffer(map.total_bytes)
  initStrandHeader(buffer, map)

  const view = new StrandView(buffer, CATEGORIES)
  const cursor = view.allocateCursor()
  const labelling = view.registerConsumer()
  const adding = view.registerConsumer()
  const outcome: Outcome = { labels: [], scoreSum: 0, progress: 0 }
  const worker = new Worker(file, { workerData: buffer })

  for (let seq = 0; ;) {
    const count = await view.waitForCommit(seq, 5_000)
    for (let at = seq; at < count; at += 1) {
      cursor.seek(at)
      outcome.labels.push(`${cursor.getRef('category')} ${cursor.getString('label')}`)
    }
    view.acknowledgeRead(count, labelling)
    for (; seq < count; seq += 1) {
      cursor.seek(seq)
      outcome.scoreSum += cursor.getF32('score')!
    }
    view.acknowledgeRead(count, adding) // both are done with them: the Worker may overwrite them
    outcome.progress = count / view.map.estimated_records!
    if (view.status === 'eos' && count === view.committedCount) break
  }
  view.releaseConsumer(labelling)
  view.releaseConsumer(adding)
  await worker.terminate()
  return outcome
}

function produce(buffer: SharedArrayBuffer): void {
  const writer = new StrandWriter(buffer, { categories: CATEGORIES })
  writer.begin()
  for (let id = 0; id < RECORDS; id += 3)
    writer.writeRecordBatch(
      [id, id + 1, id + 2].map((n) => ({
        id: n,
        score: n / 2,
        category: CATEGORIES[n % 2]!,
        label: `record ${n}`,
      })),
    )
  writer.finalize()
}

if (!isMainThread && parentPort !== null && workerData instanceof SharedArrayBuffer)
  produce(workerData)
