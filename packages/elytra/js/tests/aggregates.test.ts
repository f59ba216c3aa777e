import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'

import { columnOf, valueAt, type Batch } from '../src/engine/batch.ts'
import { readLiteral, type Value } from '../src/engine/literals.ts'
import { PlanRun } from '../src/engine/planRun.ts'
import { parseType, typeText } from '../src/engine/types.ts'
import { Unsupported, type SennitError } from '../src/errors.ts'
import type { AggJson, NamedExpr } from '../src/plan/json.ts'

interface Spelled {
  name: string
  type: string
  values: (string | boolean | null)[]
}

interface Case {
  name: string
  keys: NamedExpr[]
  aggs: { name: string; agg: AggJson }[]
  columns: Spelled[]
  expected?: Spelled[]
  error?: string
}

const CASES = (
  JSON.parse(readFileSync('../../../spec/semantics/aggregates.json', 'utf8')) as { cases: Case[] }
).cases

function batchOf(columns: readonly Spelled[]): Batch {
  const fields = columns.map(({ name, type }) => ({ name, type: parseType(type) }))
  const made = columns.map(({ type, values }) => {
    const kind = parseType(type)
    return columnOf(
      kind,
      values.map((value) => readLiteral(value, kind)),
    )
  })
  return { fields, columns: made, rows: columns[0]?.values.length ?? 0 }
}

/** The batch cut after each row, and as it is. */
function cutsOf(batch: Batch): Batch[][] {
  const single = Array.from({ length: batch.rows }, (_, row) => ({
    ...batch,
    columns: batch.columns.map(({ values, nulls }) => ({
      values: values.slice(row, row + 1),
      nulls: nulls?.slice(row, row + 1) ?? null,
    })),
    rows: 1,
  }))
  return [[batch], single]
}

function same(found: Value | null, wanted: Value | null): boolean {
  if (typeof found === 'number' && Number.isNaN(found)) return Number.isNaN(wanted)
  // eslint-disable-next-line eqeqeq -- a bigint may stand for a number
  return found == wanted && (found === null) === (wanted === null)
}

test('aggregates of the specification', () => {
  let computed = 0
  for (const { name, keys, aggs, columns, expected = [], error } of CASES) {
    let batch: Batch
    try {
      batch = batchOf(columns)
      new PlanRun({ op: 'aggregate', input: SCAN, keys, aggs }, batch.fields)
    } catch (problem) {
      if (problem instanceof Unsupported) continue
      assert.equal((problem as SennitError).code, error, name)
      continue
    }
    computed += 1
    for (const batches of cutsOf(batch)) {
      const run = new PlanRun({ op: 'aggregate', input: SCAN, keys, aggs }, batch.fields)
      for (const each of batches) run.add(each)
      if (error !== undefined) {
        assert.throws(() => run.finish(), { code: error }, name)
        continue
      }
      const made = run.finish()
      expected.forEach((wanted, at) => {
        const [field, column] = [made.fields[at], made.columns[at]]
        assert.ok(field && column)
        assert.deepEqual([field.name, typeText(field.type)], [wanted.name, wanted.type], name)
        assert.equal(made.rows, wanted.values.length, name)
        wanted.values.forEach((text, row) => {
          const value = valueAt(column, field.type, row)
          const spelled = readLiteral(text, field.type)
          assert.ok(
            same(value, spelled),
            `${name}, ${wanted.name}: ${String(value)} is not ${String(text)}`,
          )
        })
      })
    }
  }
  assert.equal(computed, 20)
})

const SCAN = { op: 'scan', source: { dataset: 'rows' } } as const
