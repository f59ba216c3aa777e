import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'

import { columnOf, valueAt, type Batch } from '../src/engine/batch.ts'
import { Kernel } from '../src/engine/kernel.ts'
import { readLiteral, type Value } from '../src/engine/literals.ts'
import { parseType, typeText } from '../src/engine/types.ts'
import { SennitError, Unsupported } from '../src/errors.ts'
import type { ExprJson } from '../src/plan/json.ts'

interface CaseColumn {
  name: string
  type: string
  values: (string | boolean | null)[]
}

interface Case {
  name: string
  expr: ExprJson
  columns: CaseColumn[]
  type: string
  expected?: (string | boolean | null)[]
  error?: string
}

/** How many cases of each file are computed; the others are refused by name. */
const COMPUTED: Record<string, number> = {
  arithmetic: 20,
  rounding: 7,
  comparison: 15,
  logic: 28,
  casts: 17,
  dates: 41,
  text: 31,
  math: 6,
}

function casesOf(subject: string): Case[] {
  const text = readFileSync(`../../../spec/semantics/${subject}.json`, 'utf8')
  return (JSON.parse(text) as { cases: Case[] }).cases
}

function batchOf(columns: readonly CaseColumn[]): Batch {
  const fields = columns.map(({ name, type }) => ({ name, type: parseType(type) }))
  return {
    fields,
    columns: columns.map(({ type, values }) => {
      const kind = parseType(type)
      return columnOf(
        kind,
        values.map((value) => readLiteral(value, kind)),
      )
    }),
    rows: columns[0]?.values.length ?? 0,
  }
}

function answer({ expr, columns }: Case): { type: string; values: (Value | null)[] } {
  const batch = batchOf(columns)
  const kernel = Kernel.of(
    [
      {
        op: 'project',
        input: { op: 'scan', source: { dataset: '' } },
        columns: [{ name: 'made', expr }],
      },
    ],
    batch.fields,
  )
  const made = kernel.run(batch)
  const [field] = made.fields
  const [column] = made.columns
  if (!field || !column) throw new Error('there is one column')
  const rows = Array.from({ length: made.rows }, (_, row) => valueAt(column, field.type, row))
  return { type: typeText(field.type), values: rows }
}

function same(found: Value | null | undefined, wanted: Value | null): boolean {
  // Zeros of either sign are equal, as the specification says.
  if (typeof found === 'number' && Number.isNaN(found)) return Number.isNaN(wanted)
  // eslint-disable-next-line eqeqeq -- a bigint may stand for a number
  return found == wanted && typeof found !== 'undefined' && (found === null) === (wanted === null)
}

for (const subject of Object.keys(COMPUTED))
  test(`the cases of the specification: ${subject}`, () => {
    let computed = 0
    for (const each of casesOf(subject)) {
      let found
      try {
        found = answer(each)
      } catch (error) {
        if (error instanceof Unsupported) continue
        computed += 1
        assert.ok(error instanceof SennitError, `${each.name}: ${String(error)}`)
        assert.equal(error.code, each.error, `${each.name}: ${error.message}`)
        continue
      }
      computed += 1
      assert.equal(each.error, undefined, `${each.name} has an answer: ${String(found.values)}`)
      assert.equal(found.type, each.type, each.name)
      const kind = parseType(each.type)
      const wanted = (each.expected ?? []).map((value) => readLiteral(value, kind))
      assert.equal(found.values.length, wanted.length, each.name)
      wanted.forEach((value, row) =>
        assert.ok(
          same(found.values[row], value),
          `${each.name}, row ${row}: ${String(found.values[row])} is not ${String(value)}`,
        ),
      )
    }
    assert.equal(computed, COMPUTED[subject])
  })
