import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'

import { valueAt, type Batch } from '../src/engine/batch.ts'
import { BadInput, CsvReader } from '../src/engine/csv.ts'
import { inferCsv } from '../src/engine/csvSchema.ts'
import { readLiteral, type Value } from '../src/engine/literals.ts'
import { parseType, typeText, type Field } from '../src/engine/types.ts'
import { Unsupported } from '../src/errors.ts'
import { randoms } from './randoms.ts'

interface Case {
  name: string
  text: string
  schema: { fields: { name: string; type: string }[] }
  expected: (string | null)[][]
}

const { cases: CASES } = JSON.parse(readFileSync('../../../spec/semantics/csv.json', 'utf8')) as {
  cases: Case[]
}

/** The columns of a text that comes in pieces of some size. */
function read(
  text: string,
  fields: readonly Field[],
  piece: number,
  start: number,
): (Value | null)[][] {
  const bytes = new TextEncoder().encode(text).subarray(start)
  const reader = new CsvReader(fields, new Set(fields.map(({ name }) => name)), {}, 2)
  const batches: Batch[] = []
  for (let at = 0; at < bytes.length; at += piece)
    batches.push(...reader.add(bytes.slice(at, at + piece)))
  batches.push(...reader.finish())
  return fields.map(({ type }, at) =>
    batches.flatMap((batch) => {
      const column = batch.columns[at]
      return column
        ? Array.from({ length: batch.rows }, (_, row) => valueAt(column, type, row))
        : []
    }),
  )
}

function startOf(text: string): number {
  return inferCsv(new TextEncoder().encode(text), true).start
}

test('fields of the specification, in pieces of any size', () => {
  let computed = 0
  for (const { name, text, schema, expected } of CASES) {
    let fields: Field[]
    try {
      fields = schema.fields.map((field) => ({ name: field.name, type: parseType(field.type) }))
    } catch (error) {
      if (error instanceof Unsupported) continue
      throw error
    }
    computed += 1
    const wanted = expected.map((column, at) =>
      column.map((value) => readLiteral(value, fields[at]?.type ?? { name: 'Utf8' })),
    )
    for (const piece of [1, 2, 3, 7, 1000])
      assert.deepEqual(read(text, fields, piece, startOf(text)), wanted, `${name}, ${piece} bytes`)
  }
  assert.ok(computed >= CASES.length - 2)
})

test('texts that were written are read back, whatever they have inside', () => {
  const random = randoms(7)
  const alphabet = ['a', 'é', '👍', '"', ',', '\n', '\r\n', ' ', '1', '""', "'"]
  for (let round = 0; round < 300; round += 1) {
    const columns = 1 + Math.floor(random() * 4)
    const rows = Array.from({ length: Math.floor(random() * 12) }, () =>
      Array.from({ length: columns }, () =>
        random() < 0.1
          ? null
          : Array.from(
              { length: Math.floor(random() * 6) },
              () => alphabet[Math.floor(random() * alphabet.length)],
            ).join(''),
      ),
    )
    const end = random() < 0.5 ? '\n' : '\r\n'
    const written = rows.map((row) => row.map((text) => spelled(text, random)).join(','))
    const last = random() < 0.5 || columns === 1 ? end : ''
    const text =
      [Array.from({ length: columns }, (_, at) => `c${at}`).join(','), ...written].join(end) + last
    const fields = Array.from({ length: columns }, (_, at) => ({
      name: `c${at}`,
      type: parseType('Utf8'),
    }))
    const found = read(text, fields, 1 + Math.floor(random() * 9), startOf(text))
    const wanted = fields.map((_, at) => rows.map((row) => row[at] ?? null))
    assert.deepEqual(found, wanted, JSON.stringify(text))
  }
})

function spelled(text: string | null, random: () => number): string {
  if (text === null) return ''
  const mustQuote = text === '' || /[",\r\n]/.test(text)
  return mustQuote || random() < 0.2 ? `"${text.replaceAll('"', '""')}"` : text
}

test('types are inferred as the node infers them', () => {
  const inferred: [string, string][] = [
    ['1', 'Int64'],
    ['-9223372036854775808', 'Int64'],
    ['18446744073709551615', 'UInt64'],
    ['99999999999999999999', 'Utf8'],
    ['02134', 'Utf8'],
    ['1.5', 'Float64'],
    ['0.12345678901234567', 'Float64'],
    ['1e3', 'Float64'],
    ['TRUE', 'Bool'],
    ['2013-01-31', 'Date'],
    ['2013-02-30', 'Utf8'],
    ['2013-01-31 05:06:07', 'Timestamp(s)'],
    ['2013-01-31T05:06:07.5Z', 'Timestamp(us,UTC)'],
    ['x', 'Utf8'],
  ]
  for (const [text, type] of inferred) {
    const { fields } = inferCsv(new TextEncoder().encode(`a\n${text}\n`), true)
    assert.equal(typeText(fields[0]?.type ?? { name: 'Null' }), type, text)
  }
})

test('a value that is none of its type is refused with its line', () => {
  const fields = [{ name: 'n', type: parseType('Int64') }]
  const bad: [string, RegExp][] = [
    ['n\n1\nx\n', /line 3: column "n": "x" is not a Int64/],
    ['n\n1,2\n', /line 2/],
    ['n\n"1\n', /line 2: a quote that is never closed/],
  ]
  for (const [text, message] of bad)
    assert.throws(
      () => read(text, fields, 100, 2),
      (error: Error) => {
        assert.match(error.message, message)
        return error instanceof BadInput
      },
    )
})
