import assert from 'node:assert/strict'
import { test } from 'node:test'

import { bounds, moveSelection, selectionText, type Selection } from '../lib/sql/selection'

const size = { rows: 100, columns: 5, page: 20 }
const at = (row: number, column: number): Selection => ({
  anchor: { row, column },
  focus: { row, column },
})
const press = (from: Selection, key: string, keys: { shift?: boolean; mod?: boolean } = {}) =>
  moveSelection(from, { key, shift: keys.shift ?? false, mod: keys.mod ?? false }, size)

test('arrows move one cell and stop at the edges', () => {
  assert.deepEqual(press(at(3, 2), 'ArrowDown'), at(4, 2))
  assert.deepEqual(press(at(0, 0), 'ArrowUp'), at(0, 0))
  assert.deepEqual(press(at(99, 4), 'ArrowRight'), at(99, 4))
})

test('pages, ends and corners', () => {
  assert.deepEqual(press(at(50, 2), 'PageDown'), at(70, 2))
  assert.deepEqual(press(at(90, 2), 'PageDown'), at(99, 2))
  assert.deepEqual(press(at(50, 2), 'End'), at(50, 4))
  assert.deepEqual(press(at(50, 2), 'Home', { mod: true }), at(0, 0))
  assert.deepEqual(press(at(50, 2), 'End', { mod: true }), at(99, 4))
})

test('shift keeps the corner where selecting began', () => {
  const first = press(at(5, 1), 'ArrowDown', { shift: true })!
  const second = press(first, 'ArrowRight', { shift: true })!
  assert.deepEqual(bounds(second), { top: 5, bottom: 6, left: 1, right: 2 })
})

test("select all, and keys that are none of the grid's", () => {
  assert.deepEqual(bounds(press(at(5, 1), 'a', { mod: true })!), {
    top: 0,
    bottom: 99,
    left: 0,
    right: 4,
  })
  assert.equal(press(at(5, 1), 'x'), null)
})

test('copied cells are a table for spreadsheets, one cell is its value', () => {
  const rows = [
    [1, 'a\tb', null],
    [2, 'say "hi"', true],
  ]
  const show = (value: unknown) => (value === null ? '' : String(value))
  assert.equal(selectionText(rows, at(0, 1), show), 'a\tb')
  const all = { anchor: { row: 1, column: 2 }, focus: { row: 0, column: 0 } }
  assert.equal(selectionText(rows, all, show), '1\t"a\tb"\t\n2\t"say ""hi"""\ttrue')
})
