import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'

import { Elytra } from '../src/client/elytra.ts'
import { canonicalJson } from '../src/plan/canonical.ts'
import { CODE } from './codegen.generated.ts'

const GOLDEN = JSON.parse(readFileSync('../../../spec/plans.json', 'utf8')) as Record<
  string,
  { plan: string; hash: string }
>

const node = new Elytra({ url: 'http://127.0.0.1:9' })

for (const [name, build] of Object.entries(CODE))
  test(`the code that elytra codegen makes of the plan: ${name}`, async () => {
    const pipeline = build(node)
    assert.equal(canonicalJson(await pipeline.plan()), GOLDEN[name]?.plan)
    assert.equal(await pipeline.hash(), GOLDEN[name]?.hash)
  })

test('there is code of every plan of the specification without functions', () => {
  const plans = Object.keys(GOLDEN).filter((name) => name !== 'called functions')
  assert.deepEqual(Object.keys(CODE).sort(), plans.sort())
})
