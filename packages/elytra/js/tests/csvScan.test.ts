import assert from 'node:assert/strict'
import test from 'node:test'

import { valueAt } from '../src/engine/batch.ts'
import { CsvReader } from '../src/engine/csv.ts'
import { scanOf } from '../src/engine/csvScan.ts'
import type { Value } from '../src/engine/literals.ts'
import { parseType, type Field } from '../src/engine/types.ts'
import { randoms } from './randoms.ts'

const TYPES = [
  ['Int64', ['0', '-0', '7', '-12', '123456789', '1234567890', '-9007199254740993', '+1', '00012', '1.0']],
  ['UInt8', ['0', '255', '256', '-1', '-0', '9']],
  ['Int32', ['2147483647', '2147483648', '-2147483648', '5']],
  ['UInt64', ['18446744073709551615', '18446744073709551616', '3', '-3']],
  ['Float64', ['1.5', '.5', '5.', '-0', '-0.0', '123456789.123456', '0.1234567890123456789', '1e5', '1E-7',
    '12345678901234567', 'inf', '-NaN', '.', '-', '1.2.3', '9007199254740993', '0.3', '2.2250738585072014e-308']],
  ['Float32', ['0.1', '16777217', '3.4028236e38', '-0']],
  ['Bool', ['true', 'FALSE', 'True', 'tru', '1']],
  ['Date', ['2013-01-31', '2013-02-30', '2012-02-29', '2013-1-31', '0000-01-01']],
  ['Timestamp(s)', ['2013-01-31 05:06:07', '2013-01-31T05:06:07', '2013-01-31', '2013-01-31 24:00:00', '2013-01-31 05:06:07.5']],
  ['Timestamp(us,UTC)', ['2013-01-31 05:06:07', '2013-01-31T05:06:07.25Z', '2013-01-31T05:06:07+01:00']],
  ['Utf8', ['a', 'naïve', '👍', ' b ', 'q"uote', "it's", '\ufeffmark', 'a\rb', 'a long note of many letters']],
] as const // prettier-ignore

interface File {
  fields: Field[]
  needed: Set<string>
  rows: string[][]
  end: string
  last: string
}

/** Rows of values that mostly fit, some quoted, some missing, with other line ends. */
function randomFile(random: () => number): File {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T
  const columns = Array.from({ length: 1 + Math.floor(random() * 5) }, () => pick(TYPES))
  const fields = columns.map(([type], at) => ({ name: `c${at}`, type: parseType(type) }))
  const needed = new Set(fields.filter(() => random() < 0.6).map(({ name }) => name))
  // Values that do not fit end a file: most files have none.
  const isTame = random() < 0.7
  const rows = Array.from({ length: Math.floor(random() * 10) }, () => {
    if (random() < 0.05) return ['']
    const row = columns.map(([, values]): string => {
      if (random() < 0.15) return random() < 0.5 ? '' : '""'
      const text = isTame ? values[0] : pick(values)
      const inner = random() < 0.1 ? `${text}\n"` : text
      return random() < 0.25 || inner !== text ? `"${inner.replaceAll('"', '""')}"` : text
    })
    return random() < 0.02 ? row.slice(1) : row
  })
  return { fields, needed, rows, end: pick(['\n', '\r\n']), last: pick(['', '\n', '\r\n']) }
}

function read(file: File, delimiter: string, piece: number): (Value | null)[][] | string {
  const text = file.rows.map((row) => row.join(delimiter)).join(file.end) + file.last
  const bytes = new TextEncoder().encode(text)
  const reader = new CsvReader(
    file.fields,
    file.needed,
    { delimiter: delimiter.charCodeAt(0) },
    2,
    true,
  )
  const columns = new Map<string, (Value | null)[]>()
  const add = (batches: ReturnType<CsvReader['add']>): void => {
    for (const { fields, columns: found, rows } of batches)
      fields.forEach(({ name, type }, at) => {
        const column = found[at]
        if (!column) throw new Error('a batch without a column')
        const values = Array.from({ length: rows }, (_, row) => valueAt(column, type, row))
        columns.set(name, [...(columns.get(name) ?? []), ...values])
      })
  }
  try {
    for (let at = 0; at < bytes.length; at += piece) add(reader.add(bytes.slice(at, at + piece)))
    add(reader.finish())
  } catch (error) {
    return String(error)
  }
  return [...columns.values()]
}

test('a generated reader reads what the careful one reads, and refuses what it refuses', () => {
  const random = randoms(11)
  const types = [parseType('Int64')]
  // No value has an x, and with it as the delimiter no reader is generated.
  assert.equal(scanOf(types, 'x'.charCodeAt(0)), null)
  assert.notEqual(scanOf(types, ','.charCodeAt(0)), null)
  let refused = 0
  for (let round = 0; round < 1500; round += 1) {
    const file = randomFile(random)
    const wanted = read(file, 'x', 1_000_000)
    refused += Number(typeof wanted === 'string')
    for (const piece of [1 + Math.floor(random() * 40), 1_000_000])
      assert.deepEqual(read(file, ',', piece), wanted, JSON.stringify(file))
  }
  assert.ok(refused > 100 && refused < 1000, `${refused} files are refused`)
})

test('floats have the bits of parseFloat', () => {
  const random = randoms(5)
  const texts = Array.from({ length: 3000 }, () => {
    const digits = (most: number): string =>
      Array.from({ length: Math.floor(random() * most) }, () => Math.floor(random() * 10)).join('')
    const sign = random() < 0.3 ? '-' : ''
    const exponent =
      random() < 0.3 ? `e${random() < 0.5 ? '-' : ''}${Math.floor(random() * 330)}` : ''
    return `${sign}${Math.floor(random() * 10)}${digits(12)}.${digits(14)}${exponent}`
  })
  const fields = [{ name: 'f', type: parseType('Float64') }]
  const file = {
    fields,
    needed: new Set(['f']),
    rows: texts.map((text) => [text]),
    end: '\n',
    last: '\n',
  }
  const [found] = read(file, ',', 1_000_000) as number[][]
  texts.forEach((text, at) => assert.ok(Object.is(found?.[at], parseFloat(text)), text))
})

test('more texts than a dictionary holds, and more rows than a batch', () => {
  const rows = Array.from({ length: 200_000 }, (_, at) => [String(at % 7), `text ${at % 90_000}`])
  const fields = [
    { name: 'n', type: parseType('Int64') },
    { name: 't', type: parseType('Utf8') },
  ]
  const file = { fields, needed: new Set(['n', 't']), rows, end: '\n', last: '' }
  const [numbers, texts] = read(file, ',', 1 << 20) as [number[], string[]]
  assert.equal(texts.length, rows.length)
  rows.forEach(([n, text], at) => {
    if (numbers[at] !== Number(n) || texts[at] !== text) assert.fail(`row ${at}`)
  })
})

test('texts of equal hashes do not make the reader slow, nor equal', () => {
  // Each pair of letters has the hash of the other, so that all texts of twelve pairs collide.
  const texts = Array.from({ length: 4096 }, (_, at) =>
    Array.from({ length: 12 }, (__, bit) => ((at >> bit) & 1 ? 'Aa' : 'BB')).join(''),
  )
  const fields = [{ name: 't', type: parseType('Utf8') }]
  const rows = [...texts, ...texts].map((text) => [text])
  const file = { fields, needed: new Set(['t']), rows, end: '\n', last: '\n' }
  assert.deepEqual(read(file, ',', 1_000_000), [[...texts, ...texts]])
})
