import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  buildSchema,
  computeStrandMap,
  ConsumerGoneError,
  LeaseHeldError,
  RingExhaustedError,
  StrandAbortError,
  StrandClosedError,
  StrandConflictError,
  StrandTimeoutError,
  StrandView,
  StrandWriter,
  StreamResetError,
  type FieldSpec,
} from '../src/index.js'
import { freshRing, openRing, readAll, rows, VERSIONS } from './rings.js'

const NUMBER: FieldSpec[] = [{ name: 'n', type: 'u32' }]

test('a stream goes from initializing to its end', async () => {
  const { writer, view } = openRing(NUMBER)
  assert.equal(view.status, 'initializing')
  writer.begin()
  assert.equal(view.status, 'streaming')
  writer.writeRecordBatch(rows(3))
  writer.finalize()
  assert.equal(view.status, 'eos')
  assert.equal(await view.waitForCommit(0), 3)
  assert.equal(await view.waitForCommit(3), 3)
  assert.throws(() => writer.write([1]), StrandClosedError)
})

test('an aborted stream returns the written records, then its reason', async () => {
  const { writer, view } = openRing(NUMBER)
  writer.writeRecordBatch(rows(2))
  writer.abort('the source is gone: ' + 'é'.repeat(400))
  assert.equal(view.status, 'error')
  assert.equal(await view.waitForCommit(0), 2)
  await assert.rejects(view.waitForCommit(2), (error: StrandAbortError) => {
    assert.match(error.reason, /^the source is gone: é+$/)
    return error instanceof StrandAbortError
  })
})

test('a writer learns of an abort at its next claim, with room or without', () => {
  const { writer, view } = openRing(NUMBER)
  writer.write([1])
  view.signalAbort()
  assert.throws(() => writer.write([2]), StrandAbortError)
  assert.throws(() => writer.claimSlot(), StrandAbortError)
})

test('a write fails after its timeout and can be repeated', async () => {
  const { buffer, view } = openRing(NUMBER, { indexCapacity: 4 })
  const writer = new StrandWriter(buffer, { timeoutMs: 5 })
  writer.writeRecordBatch(rows(4))
  assert.throws(() => writer.write([4]), StrandTimeoutError)
  await assert.rejects(writer.writeRecordBatchAsync([[4]]), StrandTimeoutError)
  assert.equal(writer.committedCount, 4)
  view.acknowledgeRead(1)
  writer.write([4])
  assert.equal(writer.committedCount, 5)
  assert.throws(() => new StrandWriter(buffer, { timeoutMs: -1 }), RangeError)
})

for (const version of VERSIONS) {
  test(`v${version}: unreleased slots are not overwritten`, async () => {
    const { writer, view } = openRing(NUMBER, { version, indexCapacity: 4 })
    const writing = writer.writeRecordBatchAsync(rows(10))
    const seen: unknown[] = []
    while (seen.length < 10) {
      const count = await view.waitForCommit(seen.length)
      assert.ok(count - seen.length <= 4)
      seen.push(...readAll(view).map((row) => row[0]))
      view.acknowledgeRead(count)
    }
    assert.equal(await writing, 10)
    assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  })

  test(`v${version}: heap bytes of unread records are not overwritten`, async () => {
    const text: FieldSpec[] = [{ name: 't', type: 'utf8' }]
    const { writer, view } = openRing(text, { version, indexCapacity: 64, heapCapacity: 128 })
    const words = Array.from({ length: 40 }, (_, at) => `word ${at} `.repeat(3))
    const writing = writer.writeRecordBatchAsync(words.map((word) => [word]))
    const seen: unknown[] = []
    while (seen.length < 40) {
      const count = await view.waitForCommit(seen.length)
      seen.push(...readAll(view).map((row) => row[0]))
      view.acknowledgeRead(count)
    }
    await writing
    assert.deepEqual(seen, words)
  })

  test(`v${version}: reset begins a new stream, which views follow`, async () => {
    const { writer, view } = openRing(NUMBER, { version })
    assert.throws(() => writer.reset(), StrandConflictError)
    writer.writeRecordBatch(rows(3))
    writer.finalize()
    assert.throws(() => writer.reset(), /3 unacknowledged records of the ended stream/)
    view.acknowledgeRead(3)
    writer.reset()
    assert.equal(view.status, 'initializing')
    await assert.rejects(view.waitForCommit(3), StreamResetError)
    writer.writeRecordBatch(rows(2, 50))
    assert.equal(await view.waitForCommit(0), 2)
    assert.deepEqual(readAll(view), [[50], [51]])
  })
}

test('claims are committed in order, or not at all', () => {
  const { writer, view } = openRing(NUMBER, { indexCapacity: 4 })
  const [first, second] = writer.claimSlots(2)
  const third = writer.claimSlot()
  assert.deepEqual([first!.seq, second!.seq, third.seq], [0, 1, 2])
  assert.throws(() => writer.commitSlot(second!.seq), RangeError)
  assert.throws(() => writer.commitSlots(0, 4), RangeError)
  assert.throws(() => writer.write([1]), StrandConflictError)
  writer.commitSlots(0, 2)
  assert.equal(view.committedCount, 2)
  writer.commitSlot(2)
  assert.throws(() => writer.commitSlot(3), RangeError)
  assert.throws(() => writer.claimSlots(5), RangeError)
})

for (const version of VERSIONS)
  test(`v${version}: slots and heap bytes filled by hand read as any other record`, () => {
    const fields: FieldSpec[] = [
      { name: 'id', type: 'u32' },
      { name: 'b', type: 'bytes' },
    ]
    const { buffer, writer, view } = openRing(fields, { version })
    const bytes = new DataView(buffer)
    const { slotOffset, seq } = writer.claimSlot()
    const { physOffset, monoOffset } = writer.claimHeapBytes(3)
    new Uint8Array(buffer, physOffset, 3).set([7, 8, 9])
    const [id, pointer] = view.map.layout.byteOffsets
    bytes.setUint32(slotOffset + id!, 42, true)
    bytes.setUint32(slotOffset + pointer!, monoOffset, true)
    if (version === 6) bytes.setUint32(slotOffset + pointer! + 8, 3, true)
    else bytes.setUint16(slotOffset + pointer! + 4, 3, true)
    writer.commitHeap()
    writer.commitSlot(seq)
    assert.deepEqual(readAll(view), [[42, [7, 8, 9]]])
  })

test('heap bytes claimed ahead of their slot wait for a slot', async () => {
  const text: FieldSpec[] = [{ name: 't', type: 'utf8' }]
  const { writer, view } = openRing(text, { indexCapacity: 4, heapCapacity: 256 })
  writer.writeRecordBatch(['a', 'b', 'c', 'd'].map((letter) => [letter.repeat(60)]))
  view.signalAbort() // instead of waiting for ever
  assert.throws(() => writer.claimHeapBytes(60), StrandAbortError)
  assert.deepEqual(readAll(view)[0], ['a'.repeat(60)])
})

test('heap bytes published ahead of a missing record are released with the one before', () => {
  const { buffer, writer, view } = openRing([{ name: 't', type: 'utf8' }], { heapCapacity: 128 })
  writer.write(['x'.repeat(40)])
  writer.claimHeapBytes(40)
  writer.commitHeap()
  writer.abandon()
  view.acknowledgeRead(1)
  view.close() // so that a write which waits for ever throws
  writer.write(['y'.repeat(60)])
  assert.deepEqual(readAll(new StrandView(buffer)), [['y'.repeat(60)]])
})

test('a view that joins a new stream with one more consumer still learns of it', async () => {
  const { writer, view } = openRing(NUMBER)
  writer.writeRecordBatch(rows(3))
  writer.finalize()
  view.acknowledgeRead(3)
  writer.reset()
  writer.writeRecordBatch(rows(2))
  view.registerConsumer()
  await assert.rejects(view.waitForCommit(3), StreamResetError)
  assert.equal(await view.waitForCommit(0), 2)
  assert.deepEqual(readAll(view), [[0], [1]])
})

test('a counter that cannot be makes nothing readable', () => {
  const { buffer, writer, view } = openRing(NUMBER)
  writer.write([1])
  new BigUint64Array(buffer, 0, 512)[3144 / 8] = 100n
  assert.equal(view.allocateCursor().seek(50), false)
})

test('abandoned claims leave no trace', () => {
  const { writer, view } = openRing(NUMBER)
  writer.claimSlots(3)
  writer.claimHeapBytes(100)
  writer.abandon()
  writer.write([5])
  assert.deepEqual(readAll(view), [[5]])
})

test('every consumer reads every record, and the slowest holds the producer', async () => {
  const { writer, view } = openRing(NUMBER, { indexCapacity: 4 })
  const token = view.registerConsumer()
  const writing = writer.writeRecordBatchAsync(rows(6))
  await view.waitForCommit(0, Infinity, 4)
  view.acknowledgeRead(4)
  assert.equal(view.windowStart, 0)
  assert.equal(view.committedCount, 4)
  view.acknowledgeRead(2, token)
  assert.equal(await writing, 6)
  assert.deepEqual(readAll(view), [[2], [3], [4], [5]])
  assert.throws(() => view.acknowledgeRead(1, token), RangeError)
  assert.throws(() => view.acknowledgeRead(7), RangeError)
  assert.throws(() => view.acknowledgeRead(3, 6), /no token/)
})

test('a consumer that joins later starts at its position, never at a released record', () => {
  const { buffer, writer, view } = openRing(NUMBER, { indexCapacity: 4 })
  writer.writeRecordBatch(rows(3))
  view.acknowledgeRead(1)
  assert.equal(new StrandView(buffer).windowStart, 1)
  assert.equal(new StrandView(buffer, null, { start: 'next' }).windowStart, 3)
})

test('a successor continues where the furthest reader stopped', () => {
  const { buffer, writer, view } = openRing(NUMBER, { indexCapacity: 4 })
  writer.writeRecordBatch(rows(4))
  view.acknowledgeRead(3)
  view.close()
  const successor = new StrandView(buffer)
  assert.deepEqual(readAll(successor), [[3]])
})

test('releasing the consumer that holds the producer wakes it', async () => {
  const { writer, view } = openRing(NUMBER, { indexCapacity: 4 })
  const token = view.registerConsumer()
  const writing = writer.writeRecordBatchAsync(rows(6))
  await view.waitForCommit(3)
  view.acknowledgeRead(4)
  view.releaseConsumer(token)
  assert.equal(await writing, 6)
  assert.throws(() => view.releaseConsumer(token), RangeError)
})

test('there are eight consumers and no ninth', () => {
  const { view } = openRing(NUMBER)
  const tokens = Array.from({ length: 8 }, () => view.registerConsumer())
  assert.deepEqual([...tokens].sort(), [0, 1, 2, 3, 4, 5, 6, 7])
  assert.throws(() => view.registerConsumer(), StrandConflictError)
  assert.throws(() => view.acknowledgeRead(0), /own consumer was released/)
})

test('a view that is read by its tokens alone holds nothing back', async () => {
  const { writer, view } = openRing(NUMBER, { indexCapacity: 4 })
  const tokens = [view.registerConsumer(), view.registerConsumer()]
  const writing = writer.writeRecordBatchAsync(rows(30)).then(() => writer.finalize())
  const cursor = view.allocateCursor()
  const seen: unknown[] = []
  for (let seq = 0; ;) {
    const count = await view.waitForCommit(seq)
    if (count === seq) break
    for (; seq < count; seq += 1) if (cursor.seek(seq)) seen.push(cursor.toTuple())
    for (const token of tokens) view.acknowledgeRead(count, token)
  }
  await writing
  assert.deepEqual(seen, rows(30))
})

test('releasing the slowest token lets the view follow the others', () => {
  const { writer, view } = openRing(NUMBER, { indexCapacity: 4 })
  const slow = view.registerConsumer()
  const fast = view.registerConsumer()
  writer.writeRecordBatch(rows(4))
  view.acknowledgeRead(4, fast)
  assert.equal(view.windowStart, 0)
  view.releaseConsumer(slow)
  assert.equal(view.windowStart, 4)
})

test('a view that acknowledged once reads for itself', () => {
  const { writer, view } = openRing(NUMBER)
  const token = view.registerConsumer()
  writer.writeRecordBatch(rows(4))
  view.acknowledgeRead(1)
  view.acknowledgeRead(4, token)
  assert.equal(view.windowStart, 1)
})

test('a blocking wait that cannot end says which consumer must move', async () => {
  const { writer, view } = openRing(NUMBER, { indexCapacity: 4 })
  const token = view.registerConsumer()
  const writing = writer.writeRecordBatchAsync(rows(6))
  await view.waitForCommit(3)
  view.acknowledgeRead(1)
  view.acknowledgeRead(4, token)
  await view.waitForCommit(4)
  assert.throws(
    () => view.waitForCommitSync(5),
    (error: LeaseHeldError) => {
      assert.match(error.hint!, /own consumer is at record 1: .*releaseConsumer\(\)/)
      return error instanceof LeaseHeldError
    },
  )
  view.releaseConsumer()
  assert.equal(await writing, 6)
})

test('an option that does not exist is an error, and never a default', () => {
  const wrong: object = { index_cap: 4 }
  const schema = buildSchema(NUMBER)
  assert.throws(() => computeStrandMap({ schema, ...wrong }), /no option index_cap/)
  const { buffer, view } = openRing(NUMBER)
  for (const open of [
    () => new StrandView(buffer, null, wrong),
    () => new StrandWriter(buffer, wrong),
    () => view.registerConsumer(wrong),
  ])
    assert.throws(open, /no option index_cap/)
})

test("a ring's sizes have the original's names as well", () => {
  const sizes = { index_capacity: 4, heap_capacity: 256, estimated_records: 9 }
  const map = computeStrandMap({ schema: buildSchema(NUMBER), ...sizes })
  assert.deepEqual([map.indexCapacity, map.heapCapacity, map.estimatedRecords], [4, 256, 9])
  const { index_capacity, heap_capacity, estimated_records } = map
  assert.deepEqual({ index_capacity, heap_capacity, estimated_records }, sizes)
  assert.equal(map.total_bytes, map.totalBytes)
  const twice = { schema: map.schema, indexCapacity: 8, ...sizes }
  assert.throws(() => computeStrandMap(twice), /indexCapacity was passed twice/)
})

test('when every consumer left, the producer follows its whenUnread option', async () => {
  const made = (whenUnread: 'raise' | 'wait' | 'discard') => {
    const buffer = freshRing(NUMBER, { indexCapacity: 4 })
    new StrandView(buffer).close()
    return { buffer, writer: new StrandWriter(buffer, { whenUnread }) }
  }
  assert.throws(() => made('raise').writer.writeRecordBatch(rows(5)), ConsumerGoneError)
  assert.equal(made('discard').writer.writeRecordBatch(rows(50)), 50)
  const { buffer, writer } = made('wait')
  const writing = writer.writeRecordBatchAsync(rows(5))
  const view = new StrandView(buffer)
  await view.waitForCommit(3)
  view.acknowledgeRead(1)
  assert.equal(await writing, 5)
})

test('a v5 ring stops before its counters overflow, and says what to do', () => {
  const buffer = freshRing(NUMBER, { version: 5 })
  const counters = new BigUint64Array(buffer, 0, 512)
  counters.set([0x7ffffffdn, 0x7ffffffdn], 3136 / 8)
  counters[3224 / 8] = 0x7ffffffdn
  const view = new StrandView(buffer)
  const writer = new StrandWriter(buffer)
  assert.throws(() => writer.writeRecordBatch(rows(5)), RingExhaustedError)
  assert.equal(view.committedCount, 0x7fffffff)
  assert.deepEqual(readAll(view), [[0], [1]])
})

test('v6 counters continue beyond 32 bits', () => {
  const buffer = freshRing(NUMBER)
  const start = 2 ** 40 + 5
  const counters = new BigUint64Array(buffer, 0, 512)
  counters.set([BigInt(start), BigInt(start)], 3136 / 8)
  counters[3224 / 8] = BigInt(start)
  const view = new StrandView(buffer)
  const writer = new StrandWriter(buffer)
  writer.writeRecordBatch(rows(6))
  assert.equal(view.windowStart, start)
  assert.deepEqual(readAll(view), [[0], [1], [2], [3], [4], [5]])
})

test('a cursor does not read uncommitted or released records', () => {
  const { writer, view } = openRing(NUMBER)
  writer.writeRecordBatch(rows(2))
  const cursor = view.allocateCursor()
  assert.equal(cursor.seek(2), false)
  assert.equal(cursor.seek(NaN), false)
  assert.equal(cursor.seek(-1), false)
  assert.ok(cursor.seek(0))
  view.acknowledgeRead(1)
  assert.throws(() => cursor.getU32('n'), /record 0 was acknowledged/)
  assert.equal(cursor.seek(0), false)
  assert.equal(cursor.seq, 0)
})

test('progress is the released share of the estimate', () => {
  const { writer, view } = openRing(NUMBER, { estimatedRecords: 4 })
  assert.equal(view.progress, 0)
  writer.writeRecordBatch(rows(6))
  view.acknowledgeRead(1)
  assert.equal(view.progress, 0.25)
  view.acknowledgeRead(6)
  assert.equal(view.progress, 1)
})
