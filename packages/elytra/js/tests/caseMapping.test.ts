import assert from 'node:assert/strict'
import test from 'node:test'

import { lower, upper } from '../src/engine/caseMapping.ts'
import { Unsupported } from '../src/errors.ts'
import { Elytra } from '../src/client/elytra.ts'
import { col } from '../src/plan/expr.ts'

test('one code point has one code point in the other case', () => {
  assert.equal(upper('straße ŉ ǆ 👍'), 'STRAẞE ŉ Ǆ 👍')
  assert.equal(lower('İSTANBUL ΑΣ'), 'istanbul ας'.replace('ς', 'σ'))
})

test('letters that versions of Unicode map differently are refused, in rows that a filter keeps', async () => {
  for (const text of ['\u019b', '\u0264', '\ua7dc', '\u{1df41}', '\u1f80'])
    assert.throws(() => upper(`a${text}`), Unsupported)
  const file = new File(['n,t\n1,é\n2,\u019b\n'], 'letters.csv')
  const rows = Elytra.file<{ n: number; t: string }>(file).select('n', {
    t: col<string>('t').upper(),
  })
  const kept = await Elytra.file<{ n: number; t: string }>(file)
    .filter((r) => r.n < 2)
    .select({ t: col<string>('t').upper() })
    .collect()
  assert.deepEqual(kept.rows, [{ t: 'É' }])
  await assert.rejects(rows.collect(), /upper of U\+019B is not computed in JavaScript/)
})
