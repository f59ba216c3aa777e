import assert from 'node:assert/strict'
import { test } from 'node:test'

import { mayChangeData } from '../lib/sql/changes'
import { addEntry, parseHistory, type HistoryEntry } from '../lib/sql/history'
import { quoteName } from '../lib/sql/names'
import { errorRange, nameRange } from '../lib/sql/position'
import { columnsInScope } from '../lib/sql/scope'
import { splitStatements, statementAt } from '../lib/sql/statements'

const texts = (sql: string) => splitStatements(sql).map((statement) => statement.text)

test('statements end at semicolons outside quotes and comments', () => {
  assert.deepEqual(texts("select ';' ; select 2"), ["select ';'", 'select 2'])
  assert.deepEqual(texts('select "a;b"; -- no; really\nselect 1'), [
    'select "a;b"',
    '-- no; really\nselect 1',
  ])
  assert.deepEqual(texts('select /* ; */ 1;select $$;$$;'), ['select /* ; */ 1', 'select $$;$$'])
  assert.deepEqual(texts("select 'it''s; fine'; select 1"), ["select 'it''s; fine'", 'select 1'])
})

test('nothing but space and comments is no statement', () => {
  assert.deepEqual(texts(' ;; -- nothing\n ; /* */'), [])
})

test('an unfinished quote reaches to the end instead of hanging', () => {
  assert.deepEqual(texts("select 'open; select 2"), ["select 'open; select 2"])
})

test('statements know their position', () => {
  const sql = '  select 1 ;\n\nselect 22  '
  for (const { text, from, to } of splitStatements(sql)) assert.equal(sql.slice(from, to), text)
})

test('the statement at the cursor is the one around or before it', () => {
  const sql = 'select 1;\nselect 2;\n'
  assert.equal(statementAt(sql, 3)?.text, 'select 1')
  assert.equal(statementAt(sql, 12)?.text, 'select 2')
  assert.equal(statementAt(sql, sql.length)?.text, 'select 2')
  assert.equal(statementAt('', 0), null)
})

test('an offset marks the whole word it points at', () => {
  assert.deepEqual(errorRange('select foo from t', { offset: 7 }), { from: 7, to: 10 })
  assert.deepEqual(errorRange('select , from t', { offset: 7 }), { from: 7, to: 8 })
})

test('line and column count from one', () => {
  const sql = 'select 1,\n  bad name\nfrom t'
  const range = errorRange(sql, { line: 2, column: 3 })!
  assert.equal(sql.slice(range.from, range.to), 'bad')
})

test('characters outside the basic plane count as one for the node and two for the editor', () => {
  const sql = "select '🦋', bad"
  const range = errorRange(sql, { offset: [...sql].indexOf('b') })!
  assert.equal(sql.slice(range.from, range.to), 'bad')
})

test('a position at or behind the end marks the last character', () => {
  assert.deepEqual(errorRange('select', { offset: 6 }), { from: 5, to: 6 })
  assert.deepEqual(errorRange('', { offset: 3 }), { from: 0, to: 0 })
})

test('an error without a place marks nothing', () => {
  assert.equal(errorRange('select 1', {}), null)
})

test('a name is found as a word, not inside another', () => {
  const sql = 'select distances, distance from t'
  assert.deepEqual(nameRange(sql, 'distance'), { from: 18, to: 26 })
  assert.equal(nameRange(sql, 'dist'), null)
})

test('names are quoted only where SQL needs it', () => {
  assert.equal(quoteName('flights'), 'flights')
  assert.equal(quoteName('Flights'), '"Flights"')
  assert.equal(quoteName('order'), '"order"')
  assert.equal(quoteName('my "file".csv'), '"my ""file"".csv"')
})

const entry = (sql: string): HistoryEntry => ({
  id: sql,
  sql,
  atMs: 0,
  elapsedMs: 1,
  outcome: 'done',
  rows: 1,
})

test('running the same text again moves it, it does not pile up', () => {
  const history = addEntry(addEntry(addEntry([], entry('a')), entry('b')), entry('b'))
  assert.deepEqual(
    history.map((each) => each.sql),
    ['b', 'a'],
  )
})

test('the history is bounded, and damaged storage is an empty one', () => {
  const long = Array.from({ length: 300 }, (_, index) => entry(String(index)))
  assert.equal(
    long.reduceRight<HistoryEntry[]>((kept, each) => addEntry(kept, each), []).length,
    200,
  )
  assert.deepEqual(parseHistory('{"not": "a list"}'), [])
  assert.deepEqual(parseHistory('[{"id": 3}, null'), [])
  assert.deepEqual(parseHistory(null), [])
})

test('columns of the tables a statement names are in scope, and of no others', () => {
  const tables = { flights: ['carrier', 'dest'], airports: ['faa'], '"Odd one"': ['x'] }
  const names = (sql: string, position = sql.length) =>
    columnsInScope(sql, position, tables).map(({ column }) => column)
  assert.deepEqual(names('select  from Flights', 7), ['carrier', 'dest'])
  assert.deepEqual(names('select * from flights f join airports a on f.'), [
    'carrier',
    'dest',
    'faa',
  ])
  assert.deepEqual(names('select 1; select * from airports'), ['faa'])
  assert.deepEqual(names('select * from "odd one"'), ['x'])
  assert.deepEqual(names('select '), [])
})

test('a statement that may change data is known by its verb', () => {
  for (const sql of [
    'INSERT INTO t VALUES (1)',
    ' -- select\n/* from */; delete from t',
    'WITH w AS (SELECT 1) UPDATE t SET a = 1',
    'create table t as select 1',
  ]) {
    assert.equal(mayChangeData(sql), true, sql)
  }
  for (const sql of ['SELECT 1', "FROM t WHERE a = 'insert'", 'WITH w AS (SELECT 1) FROM w', '']) {
    assert.equal(mayChangeData(sql), false, sql)
  }
})
