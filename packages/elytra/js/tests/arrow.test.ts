import assert from 'node:assert/strict'
import test from 'node:test'

import { readArrow } from '../src/arrow/read.ts'
import { writeArrow, type OutputColumn } from '../src/arrow/write.ts'
import { valueAt } from '../src/engine/batch.ts'
import { typeText } from '../src/engine/types.ts'
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
  const [batch] = [...batches]
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

test('a stream without rows has its columns', () => {
  const { fields, batches } = readArrow(writeArrow([{ name: 'n', type: 'Int64', values: [] }], 0))
  assert.equal(fields.length, 1)
  assert.equal([...batches][0]?.rows, 0)
})

test('types that are not computed are refused, and so are damaged bytes', () => {
  const states = writeArrow([{ name: 's', type: 'Decimal(38,0)', values: [7n] }], 1)
  assert.throws(() => readArrow(states), Unsupported)
  const whole = writeArrow(COLUMNS, 3)
  for (let size = 0; size < whole.length - 8; size += 13)
    assert.throws(
      () => [...readArrow(whole.subarray(0, size)).batches].length || size > 0 || fail(),
      (error: Error) => error instanceof SennitError || error instanceof RangeError,
      `${size} bytes`,
    )
})

function fail(): never {
  throw new SennitError('nothing was read', { code: 'bad-input' })
}
