import assert from 'node:assert/strict'
import { test } from 'node:test'

import { type Change, type Edit, Overlay } from '../src/overlay.ts'
import { fromJson, present, setAt, type Stored } from '../src/values.ts'
import { mulberry } from './random.ts'

test('an overlay equals the known value with all edits applied, on random steps', () => {
  for (let seed = 1; seed <= 60; seed += 1) {
    const random = mulberry(seed)
    const overlay = new Overlay()
    let known: Stored = null
    const edits: Edit[] = []
    for (let step = 0; step < 120; step += 1) {
      const choice = random()
      if (choice < 0.4) {
        const edit = [place(random), ...(random() < 0.3 ? [place(random)] : [])]
        edits.push(edit)
        overlay.add(edit)
      } else if (choice < 0.7 && edits.length) {
        const [edit] = edits.splice(Math.floor(random() * edits.length), 1)
        if (edit) overlay.drop(edit)
      } else {
        const change: Change = { path: place(random).path, value: anything(random) }
        const dropped = random() < 0.5 ? edits.shift() : undefined
        known = setAt(known, change.path, change.value)
        overlay.settle([change], dropped)
      }
      assert.deepEqual(present(overlay.known), present(known))
      assert.deepEqual(present(overlay.shown), present(made(known, edits)), `seed ${seed}`)
    }
  }
})

function made(known: Stored, edits: readonly Edit[]): Stored {
  for (const edit of edits) {
    for (const { path, value } of edit) known = setAt(known, path, value(known))
  }
  return known
}

function place(random: () => number): Edit[number] {
  const path = Array.from(
    { length: Math.floor(random() * 4) },
    () => 'ab'[+(random() < 0.5)] ?? 'a',
  )
  const value = anything(random)
  return { path, value: () => value }
}

function anything(random: () => number): Stored {
  const values = [null, 1, 'x', { a: 2 }, { b: { a: 3, b: 4 } }, { a: { a: 5 } }]
  return fromJson(values[Math.floor(random() * values.length)] ?? null)
}
