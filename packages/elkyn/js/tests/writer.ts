/** Writes to the store in a folder until it is killed; says what is acknowledged: see crash.test. */

import { ElkynStore } from '../src/index.ts'
import type { Json } from '../src/values.ts'

const store = new ElkynStore({ mode: 'standalone', path: process.argv[2] ?? '' })
const before = store.get('/last')
for (let n = Number(before ?? 0) + 1; ; n += 1) {
  const value: Json = n % 7 === 0 ? 'x'.repeat(200_000) : n
  void store.update('/', { last: n, [`at/${n % 50}`]: value })
  process.send?.(n)
}
