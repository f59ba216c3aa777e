import assert from 'node:assert/strict'
import { test } from 'node:test'

import { openRing, VERSIONS } from './rings.js'

const SEEKS = 100_000
const GROWTH_BYTES_MAX = 0.05 * 2 ** 20

/** Bytes by which the heap grows while `visit` runs; the least of some runs, for the compiler's sake. */
function growth(visit: () => number): number {
  assert.ok(globalThis.gc, 'run with --expose-gc')
  let least = Infinity
  for (let run = 0; run < 8; run += 1) {
    globalThis.gc()
    const before = process.memoryUsage().heapUsed
    visit()
    least = Math.min(least, process.memoryUsage().heapUsed - before)
  }
  return least
}

for (const version of VERSIONS) {
  const fields = [
    { name: 'id', type: 'u32' },
    { name: 'kind', type: 'u8', nullable: true },
    { name: 'score', type: 'f32' },
  ] as const
  const { writer, view } = openRing(fields, { version, indexCapacity: 1024 })
  writer.writeRecordBatch(Array.from({ length: 1000 }, (_, at) => [at, at % 200, at / 2]))
  const cursor = view.allocateCursor()

  test(`v${version}: seeking and reading two fields allocates nothing`, () => {
    const grown = growth(() => {
      let sum = 0
      for (let seq = 0; seq < SEEKS; seq += 1) {
        cursor.seek(seq % 1000)
        sum += cursor.getU32('id')! + cursor.getU8('kind')!
      }
      return sum
    })
    assert.ok(grown < GROWTH_BYTES_MAX, `${grown} bytes`)
  })

  test(`v${version}: reading fractions leaves nothing behind`, () => {
    const grown = growth(() => {
      let sum = 0
      for (let seq = 0; seq < SEEKS; seq += 1) {
        cursor.seek(seq % 1000)
        sum += cursor.getU32('id')! + cursor.getF32('score')!
      }
      globalThis.gc!() // an engine may box a fraction on its way out of a function
      return sum
    })
    assert.ok(grown < GROWTH_BYTES_MAX, `${grown} bytes`)
  })
}
