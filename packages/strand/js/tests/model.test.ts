/** A real ring against a list: writes, wraps, back-pressure of slots and heap, in any order. */

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ConsumerGoneError, StrandView, StrandWriter, type FieldSpec } from '../src/index.js'
import { Dice, freshRing, listed, VERSIONS } from './rings.js'

const FIELDS: FieldSpec[] = [
  { name: 'id', type: 'u32' },
  { name: 'text', type: 'utf8', nullable: true },
  { name: 'samples', type: 'i32_array' },
  { name: 'blob', type: 'bytes', nullable: true },
]

class Model {
  readonly buffer: SharedArrayBuffer
  readonly writer: StrandWriter
  readonly unread: unknown[][] = []
  view: StrandView
  read = 0
  written = 0

  constructor(
    version: 5 | 6,
    private readonly dice: Dice,
  ) {
    this.buffer = freshRing(FIELDS, { version, indexCapacity: 4, heapCapacity: 512 })
    this.view = new StrandView(this.buffer)
    this.writer = new StrandWriter(this.buffer, { whenUnread: 'raise' })
  }

  record(): unknown[] {
    const { dice } = this
    const text = dice.below(4) === 0 ? null : 'ü'.repeat(dice.below(12))
    const samples = Array.from({ length: dice.below(8) }, () => dice.below(2 ** 31))
    const blob = dice.below(3) === 0 ? null : Array.from({ length: dice.below(30) }, () => 7)
    return [this.written, text, samples, blob]
  }

  /** Write without waiting: a record that does not fit fails, and changes nothing. */
  write(): void {
    const row = this.record()
    const record = row.with(3, row[3] === null ? null : Uint8Array.from(row[3] as number[]))
    if (this.unread.length === 0) this.writer.write(record)
    else {
      this.view.close()
      try {
        this.writer.write(record)
      } catch (error) {
        assert.ok(error instanceof ConsumerGoneError)
        return
      } finally {
        this.view = new StrandView(this.buffer)
      }
    }
    this.unread.push(row)
    this.written += 1
  }

  acknowledge(): void {
    const count = this.dice.below(this.unread.length + 1)
    this.view.acknowledgeRead(this.read + count)
    this.unread.splice(0, count)
    this.read += count
  }

  check(): void {
    assert.equal(this.view.windowStart, this.read)
    assert.equal(this.view.committedCount, this.written)
    const cursor = this.view.allocateCursor()
    this.unread.forEach((row, at) => {
      assert.ok(cursor.seek(this.read + at))
      assert.deepEqual(cursor.toTuple().map(listed), row)
    })
  }
}

for (const version of VERSIONS)
  for (let seed = 1; seed <= 12; seed += 1)
    test(`v${version}, seed ${seed}: the ring holds what the list holds`, () => {
      const dice = new Dice(seed * 7919)
      const model = new Model(version, dice)
      for (let step = 0; step < 300; step += 1) {
        if (dice.below(3) < 2) model.write()
        else model.acknowledge()
        model.check()
      }
      assert.ok(model.written > 60)
    })
