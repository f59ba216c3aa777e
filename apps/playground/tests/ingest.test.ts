import assert from 'node:assert/strict'
import { test } from 'node:test'

import { summarise } from '../lib/ingest'

const ingest = {
  name: 'flights.csv',
  source: { format: 'csv', bytes: 10, encoding: 'cp1252', delimiter: ';', header: true, start: 0 },
  report: {
    widened: [{ column: 'dep_delay', line: 1200, value: 'late', from: 'Int64', to: 'Utf8' }],
    renamed: [
      { column: 2, from: 'id', to: 'id_2' },
      { column: 3, from: '', to: 'column_4' },
    ],
    notes: [{ column: 'day', line: null, note: 'kept as text' }],
  },
}

test('the report says what was detected', () => {
  assert.deepEqual(summarise(ingest)?.facts, [
    ['File', 'flights.csv'],
    ['Format', 'CSV'],
    ['Encoding', 'Windows-1252'],
    ['Delimiter', 'Semicolon'],
    ['Header', 'First line'],
  ])
})

test('widened columns keep the place and the value that did not fit', () => {
  assert.deepEqual(summarise(ingest)?.widened, [
    { column: 'dep_delay', from: 'Int64', to: 'Utf8', line: 1200, value: 'late' },
  ])
})

test('renamed columns and notes are sentences', () => {
  assert.deepEqual(summarise(ingest)?.notes, [
    'Column 3 is called id_2, because “id” was taken.',
    'Column 4 had no name and is called column_4.',
    'day: kept as text',
  ])
})

test('data that was computed has no report, and absent lists are empty', () => {
  assert.equal(summarise(null), null)
  assert.deepEqual(summarise({ source: { format: 'parquet' } }), {
    facts: [['Format', 'Parquet']],
    widened: [],
    widenedMore: 0,
    notes: [],
  })
})

test('a compressed file says so, with its size and that of what is in it', () => {
  const packed = { format: 'json', bytes: 2048, compression: 'gzip', bytesUnpacked: 3 * 1024 ** 2 }
  assert.deepEqual(summarise({ name: 'a.json.gz', source: packed })?.facts, [
    ['File', 'a.json.gz'],
    ['Format', 'JSON'],
    ['Compression', 'gzip, 2.0 KiB to 3.0 MiB'],
  ])
})

test('what a long report leaves out is counted', () => {
  const omitted = { widened: 1900, renamed: 1, notes: 12 }
  const found = summarise({ ...ingest, report: { ...ingest.report, omitted } })
  assert.equal(found?.widenedMore, 1900)
  assert.deepEqual(found?.notes, [
    'Column 3 is called id_2, because “id” was taken.',
    'Column 4 had no name and is called column_4.',
    'And 1 more column with another name.',
    'day: kept as text',
    'And 12 more remarks.',
  ])
})
