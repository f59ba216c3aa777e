/** Byte files that Python writes and reads as well (packages/strand/tests/test_golden_files.py). */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { test } from 'node:test'

import {
  buildSchema,
  computeStrandMap,
  initStrandHeader,
  StrandView,
  StrandWriter,
  type FieldSpec,
  type StrandVersion,
} from '../src/index.js'
import { readAll } from './rings.js'

interface Recipe {
  name: string
  version: StrandVersion
  schema: FieldSpec[]
  records: number
  heap: number
  metadata?: Record<string, unknown>
  query?: unknown
  estimatedRecords?: number
  preset?: { records: number; heap: number }
  steps: { write?: unknown[][]; acknowledge?: number; finalize?: true }[]
  unread: unknown[][]
}

const FOLDER = resolve('../tests/golden')
const RINGS = JSON.parse(readFileSync(resolve(FOLDER, 'rings.json'), 'utf8')) as Recipe[]

/** Who holds a role, bells and counts of sleeps differ from run to run: [offset, bytes]. */
const OF_THE_RUN = [
  [3076, 20],
  [3168, 32],
  [3216, 4],
]
for (let index = 0; index < 8; index += 1)
  OF_THE_RUN.push([3264 + 64 * index + 16, 4], [3264 + 64 * index + 24, 32])

function valueOf(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if ('i64' in value) return BigInt(value.i64 as string)
  return 'hex' in value ? Uint8Array.from(Buffer.from(value.hex as string, 'hex')) : value
}

function writeRing(recipe: Recipe): Uint8Array {
  const { version, metadata = {}, query, estimatedRecords } = recipe
  const map = computeStrandMap({
    version,
    metadata,
    query,
    ...(estimatedRecords === undefined ? {} : { estimatedRecords }),
    schema: buildSchema(recipe.schema),
    indexCapacity: recipe.records,
    heapCapacity: recipe.heap,
  })
  const buffer = new SharedArrayBuffer(map.totalBytes)
  initStrandHeader(buffer, map)
  const { records = 0, heap = 0 } = recipe.preset ?? {}
  const words = new BigUint64Array(buffer, 0, 512)
  words.set([records, records, heap, heap].map(BigInt), 3136 / 8)
  words[3224 / 8] = BigInt(records)
  const view = new StrandView(buffer)
  const writer = new StrandWriter(buffer)
  writer.begin()
  for (const { write, acknowledge } of recipe.steps) {
    if (write) writer.writeRecordBatch(write.map((row) => row.map(valueOf)))
    else if (acknowledge !== undefined) view.acknowledgeRead(acknowledge)
    else writer.finalize()
  }
  view.close()
  const bytes = Uint8Array.from(new Uint8Array(buffer))
  for (const [at, size] of OF_THE_RUN) bytes.fill(0, at, at! + size!)
  return bytes
}

for (const recipe of RINGS) {
  const golden = readFileSync(resolve(FOLDER, `${recipe.name}.bin`))

  test(`${recipe.name}: writing produces the bytes that Python writes`, () => {
    const written = writeRing(recipe)
    assert.equal(written.length, golden.length)
    const different = [...written.keys()].filter((at) => written[at] !== golden[at])
    assert.deepEqual(different, [])
  })

  test(`${recipe.name}: what Python wrote reads as what was written`, () => {
    const buffer = new SharedArrayBuffer(golden.length)
    new Uint8Array(buffer).set(golden)
    const view = new StrandView(buffer)
    const wanted = recipe.unread.map((row) =>
      row.map(valueOf).map((value, at) => {
        if (recipe.schema[at]!.type === 'i64' && value !== null) return BigInt(value as bigint)
        return value instanceof Uint8Array ? [...value] : value
      }),
    )
    assert.deepEqual(readAll(view), wanted)
    assert.deepEqual(view.map.query, recipe.query ?? null)
  })
}
