import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { ElkynStore } from '../src/index.ts'

test('a store whose process is killed as it writes has all that was acknowledged', async () => {
  const path = mkdtempSync(join(tmpdir(), 'elkyn-crash-'))
  for (let round = 0; round < 5; round += 1) {
    const acknowledged = await killed(path, 20 + round * 40)
    const store = new ElkynStore({ mode: 'standalone', path })
    const last = Number(store.get('/last'))
    assert.ok(last >= acknowledged, `${last} of ${acknowledged}`)
    const expected = last % 7 === 0 ? 'x'.repeat(200_000) : last
    assert.equal(store.get(`/at/${last % 50}`), expected)
    await store.close()
  }
  assert.deepEqual(readdirSync(path), ['log.ndjson'])
  rmSync(path, { recursive: true })
})

/** Kill a writer after it has acknowledged `writes`; returns the last that it did. */
function killed(path: string, writes: number): Promise<number> {
  const writer = fork(join(__dirname, 'writer.js'), [path])
  let [last, count] = [0, 0]
  writer.on('message', (n) => {
    last = Number(n)
    count += 1
    if (count === writes) writer.kill('SIGKILL')
  })
  return new Promise((resolve, reject) => {
    writer.on('exit', (code) => {
      if (code === null) resolve(last)
      else reject(new Error(`the writer ended with ${code}`))
    })
  })
}
