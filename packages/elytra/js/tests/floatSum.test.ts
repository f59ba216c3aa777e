import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'

import { FloatSum } from '../src/engine/floatSum.ts'
import { readLiteral } from '../src/engine/literals.ts'
import { FLOAT64 } from '../src/engine/types.ts'
import { hexFloat } from '../src/plan/values.ts'

interface Vectors {
  sums: { name: string; values: string[]; squares?: boolean; state: string; value: string }[]
  merges: { name: string; states: string[]; state: string; value: string }[]
}

const VECTORS = JSON.parse(readFileSync('../../../spec/float-sum.json', 'utf8')) as Vectors

function summed(values: readonly string[], squares = false): FloatSum {
  const sum = new FloatSum()
  for (const text of values) {
    const value = readLiteral(text, FLOAT64) as number
    if (squares) sum.addSquare(value)
    else sum.add(value)
  }
  return sum
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

test('sums of the specification, in any order and cut anywhere', () => {
  for (const { name, values, squares, state, value } of VECTORS.sums) {
    const orders = [values, [...values].reverse(), [...values].sort()]
    for (const order of orders) {
      const sum = summed(order, squares)
      assert.equal(hex(sum.bytes()), state, name)
      assert.equal(hexFloat(sum.value()), value, name)
      const cut = Math.floor(order.length / 3)
      const merged = summed(order.slice(0, cut), squares)
      merged.merge(summed(order.slice(cut), squares))
      assert.equal(hex(merged.bytes()), state, `${name}, merged`)
    }
  }
})

test('many values of one size, more than doubles hold between two carries', () => {
  const sum = new FloatSum()
  const exact = 0.1
  for (let count = 0; count < 100_000; count += 1) sum.add(exact)
  // 0.1 is 3602879701896397 / 2^55.
  const wanted = Number((3602879701896397n * 100_000n * 2n ** 10n) / 2n ** 10n) / 2 ** 55
  assert.equal(sum.value(), wanted)
})
