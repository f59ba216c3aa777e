import assert from 'node:assert/strict'
import test from 'node:test'

import { readArrow } from '../src/arrow/read.ts'
import { writeArrow, type OutputColumn } from '../src/arrow/write.ts'
import { columnOf, valueAt, type Column } from '../src/engine/batch.ts'
import type { Value } from '../src/engine/literals.ts'
import { parseType, typeText, type Type } from '../src/engine/types.ts'
import { SennitError, Unsupported } from '../src/errors.ts'

const COLUMNS: OutputColumn[] = [
  { name: 'flag', type: 'Bool', values: [true, false, null] },
  { name: 'tiny', type: 'Int8', values: [-128, null, 127] },
  { name: 'small', type: 'UInt16', values: [0, 65_535, null] },
  { name: 'int', type: 'Int32', values: [-(2 ** 31), 2 ** 31 - 1, 0] },
  { name: 'long', type: 'Int64', values: [-1, null, 2 ** 52] },
  { name: 'large', type: 'Int64', values: [-(2n ** 63n), 2n ** 63n - 1n, 0] },
  { name: 'unsigned', type: 'UInt64', values: [2n ** 64n - 1n, 1, null] },
  { name: 'single', type: 'Float32', values: [0.5, -0.25, null] },
  { name: 'double', type: 'Float64', values: [0.1, -1e300, null] },
  { name: 'text', type: 'Utf8', values: ['naïve 👍', '', null] },
  { name: 'day', type: 'Date', values: [-1, 20_000, null] },
  { name: 'at', type: 'Timestamp(us,UTC)', values: [1_357_016_400_000_000, -1, null] },
]

test('what is written is read back', () => {
  const { fields, batches } = readArrow(writeArrow(COLUMNS, 3))
  assert.deepEqual(
    fields.map(({ name, type }) => [name, typeText(type)]),
    COLUMNS.map(({ name, type }) => [name, type]),
  )
  const [batch] = [...batches()]
  assert.ok(batch)
  COLUMNS.forEach(({ name, values }, at) => {
    const [column, field] = [batch.columns[at], fields[at]]
    assert.ok(column && field)
    const found = values.map((_, row) => valueAt(column, field.type, row))
    // A column with one value beyond 2^53 has bigints only.
    assert.deepEqual(
      found.map((value) => (typeof value === 'bigint' ? String(value) : value)),
      values.map((value) =>
        found.some((each) => typeof each === 'bigint') && value !== null ? String(value) : value,
      ),
      name,
    )
  })
})

test('columns of the engine are written as lists of their values are', () => {
  const rows = 3
  for (const { name, type, values } of COLUMNS) {
    const kind = parseType(type)
    const column = columnOf(kind, values as (Value | null)[])
    const written = writeArrow([{ name, type, column }], rows)
    assert.deepEqual(written, writeArrow([{ name, type, values }], rows), name)
    // What a stream was read as, codes of texts among it, is written as the same stream.
    const [batch] = [...readArrow(written).batches()]
    const again = batch?.columns[0]
    assert.ok(again)
    assert.deepEqual(writeArrow([{ name, type, column: again }], rows), written, name)
  }
})

test('batches are read in slices, with their NULLs and texts', () => {
  const count = 40_000
  const numbers = Array.from({ length: count }, (_, at) => (at % 7 === 0 ? null : at))
  const texts = numbers.map((value) => (value === null ? null : `text ${value % 1000}`))
  const flags = numbers.map((value) => (value === null ? null : value % 2 === 0))
  const stream = writeArrow(
    [
      { name: 'n', type: 'Int32', values: numbers },
      { name: 't', type: 'Utf8', values: texts },
      { name: 'f', type: 'Bool', values: flags },
    ],
    count,
  )
  const { fields, batches } = readArrow(stream)
  const found = [...batches()]
  assert.ok(found.length > 1)
  ;[numbers, texts, flags].forEach((wanted, at) => {
    const values = found.flatMap(({ columns, rows }) =>
      Array.from({ length: rows }, (_, row) =>
        valueAt(columns[at] as Column, fields[at]?.type as Type, row),
      ),
    )
    assert.deepEqual(values, wanted)
  })
})

test('arrays that are filled again have room for a longer batch behind a short one', () => {
  const streamOf = (rows: number): Uint8Array => {
    const values = Array.from({ length: rows }, (_, at) => (at % 3 === 0 ? null : at))
    return writeArrow(
      [
        { name: 'f', type: 'Float64', values },
        { name: 'i', type: 'Int32', values },
        { name: 'n', type: 'Int64', values },
        { name: 't', type: 'Utf8', values: values.map((value) => value && `t${value}`) },
      ],
      rows,
    )
  }
  const [short, long] = [streamOf(5), streamOf(50)]
  const schemaSize = 8 + new DataView(long.buffer).getInt32(4, true)
  const both = new Uint8Array([...short.subarray(0, -8), ...long.subarray(schemaSize)])
  const { fields, batches } = readArrow(both)
  const found: unknown[][] = []
  for (const { columns, rows } of batches(true))
    for (let row = 0; row < rows; row += 1)
      found.push(fields.map(({ type }, at) => valueAt(columns[at] as Column, type, row)))
  assert.equal(found.length, 55)
  found.slice(5).forEach((row, at) => {
    assert.deepEqual(row, at % 3 === 0 ? [null, null, null, null] : [at, at, at, `t${at}`])
  })
})

test('offsets outside of the bytes, and bytes that are no text, are refused', () => {
  const whole = writeArrow([{ name: 't', type: 'Utf8', values: ['abcd', 'efgh'] }], 2)
  const at = [...whole.keys()].filter((place) => whole[place] === 97)[0] ?? 0 // the a of abcd
  const readAll = (bytes: Uint8Array): unknown => [...readArrow(bytes).batches()]
  const broken = whole.slice()
  broken[at] = 0xff
  assert.throws(() => readAll(broken), /not UTF-8/)
  for (const offset of [-1, 100, 0x7fffffff]) {
    const cut = whole.slice()
    new DataView(cut.buffer).setInt32(at - 16 + 4, offset, true)
    assert.throws(() => readAll(cut), /a text is cut/, `${offset}`)
  }
})

test('a stream without rows has its columns', () => {
  const { fields, batches } = readArrow(writeArrow([{ name: 'n', type: 'Int64', values: [] }], 0))
  assert.equal(fields.length, 1)
  assert.equal([...batches()][0]?.rows, 0)
})

test('types that are not computed are refused, and so are damaged bytes', () => {
  const states = writeArrow([{ name: 's', type: 'Decimal(38,0)', values: [7n] }], 1)
  assert.throws(() => readArrow(states), Unsupported)
  const whole = writeArrow(COLUMNS, 3)
  for (let size = 0; size < whole.length - 8; size += 13)
    assert.throws(
      () => [...readArrow(whole.subarray(0, size)).batches()].length || size > 0 || fail(),
      (error: Error) => error instanceof SennitError || error instanceof RangeError,
      `${size} bytes`,
    )
})

function fail(): never {
  throw new SennitError('nothing was read', { code: 'bad-input' })
}
