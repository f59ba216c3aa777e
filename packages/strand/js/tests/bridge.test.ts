import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  BridgeConnectionError,
  BridgeFrameError,
  bridgeFromFetch,
  bridgeFromWebSocket,
  StrandAbortError,
  StrandBridge,
  StrandClosedError,
  StrandView,
  type FieldSpec,
} from '../src/index.js'
import { encodeEnd, encodeHello, encodeRecords, FakeSocket, framesOf, prefixed } from './frames.js'
import { Dice, openRing, readAll, VERSIONS } from './rings.js'

const FIELDS: FieldSpec[] = [
  { name: 'id', type: 'u32' },
  { name: 'text', type: 'utf8', nullable: true },
  { name: 'samples', type: 'i32_array' },
]

function row(n: number): [number, string | null, number[]] {
  return [n, n % 3 === 0 ? null : 'x'.repeat(n % 23), Array.from({ length: n % 4 }, () => n)]
}

function opened(version: 5 | 6) {
  return openRing(FIELDS, { version, indexCapacity: 8, heapCapacity: 1024 })
}

/** Read all available records, and release them. */
function drain(view: StrandView): unknown[][] {
  const found = readAll(view)
  view.acknowledgeRead(view.committedCount)
  return found
}

for (const version of VERSIONS) {
  test(`v${version}: bytes arrive at the offsets they had`, () => {
    const { buffer, writer, view } = opened(version)
    const bridge = new StrandBridge(encodeHello(buffer))
    writer.writeRecordBatch([1, 2, 3, 4].map(row))
    for (const frame of framesOf(view)) bridge.apply(frame)
    const from = view.map.indexStart
    const to = view.map.totalBytes
    assert.deepEqual(
      new Uint8Array(bridge.buffer, from, to - from),
      new Uint8Array(buffer, from, to - from),
    )
    assert.deepEqual(bridge.map, view.map)
    bridge.close()
  })

  test(`v${version}: a stream of many laps arrives whole, in frames of any size`, () => {
    const { buffer, writer, view } = opened(version)
    const bridge = new StrandBridge(encodeHello(buffer))
    const reader = new StrandView(bridge.buffer)
    const dice = new Dice(42 + version)
    const seen: unknown[][] = []
    for (let n = 0; n < 400;) {
      const count = Math.min(1 + dice.below(8), 400 - n)
      writer.writeRecordBatch(Array.from({ length: count }, (_, at) => row(n + at)))
      for (const frame of framesOf(view, 40 + dice.below(300))) bridge.apply(frame)
      seen.push(...drain(reader))
      view.acknowledgeRead((n += count))
    }
    writer.finalize()
    bridge.apply(encodeEnd(400))
    assert.equal(reader.status, 'eos')
    assert.deepEqual(
      seen,
      Array.from({ length: 400 }, (_, n) => row(n)),
    )
  })

  test(`v${version}: records that its readers have not released are not overwritten`, async () => {
    const { buffer, writer, view } = opened(version)
    const bridge = new StrandBridge(encodeHello(buffer))
    const reader = new StrandView(bridge.buffer)
    writer.writeRecordBatch([1, 2, 3, 4, 5, 6, 7, 8].map(row))
    for (const frame of framesOf(view)) bridge.apply(frame)
    view.acknowledgeRead(2)
    writer.writeRecordBatch([9, 10].map(row))
    const [next] = framesOf(view)
    let applied = false
    const applying = bridge.applyWhenRoom(next!).then(() => (applied = true))
    reader.acknowledgeRead(1)
    await new Promise((done) => setTimeout(done, 20))
    assert.equal(applied, false)
    assert.deepEqual(readAll(reader)[0], row(2))
    reader.acknowledgeRead(2)
    await applying
    assert.deepEqual(readAll(reader).at(-1), row(10))
    bridge.close()
  })

  test(`v${version}: a sender that does not wait for its credit is refused`, async () => {
    const { buffer, writer, view } = opened(version)
    const bridge = new StrandBridge(encodeHello(buffer))
    const reader = new StrandView(bridge.buffer)
    writer.writeRecordBatch([1, 2, 3, 4, 5, 6, 7, 8].map(row))
    for (const frame of framesOf(view)) bridge.apply(frame)
    view.acknowledgeRead(8)
    writer.write(row(9))
    assert.throws(() => bridge.apply(framesOf(view)[0]!), BridgeFrameError)
    assert.deepEqual(drain(reader), [1, 2, 3, 4, 5, 6, 7, 8].map(row))
    await assert.rejects(reader.waitForCommit(8), StrandAbortError)
    await assert.rejects(bridge.finished, BridgeFrameError)
  })
}

test('a transfer that starts later sends nothing of before', () => {
  const { buffer, writer, view } = opened(6)
  writer.writeRecordBatch([1, 2, 3].map(row))
  view.acknowledgeRead(2)
  const bridge = new StrandBridge(encodeHello(buffer, 2))
  const reader = new StrandView(bridge.buffer)
  for (const frame of framesOf(view, 4096, 2)) bridge.apply(frame)
  assert.equal(reader.windowStart, 2)
  assert.deepEqual(readAll(reader), [row(3)])
  bridge.close()
})

test('releases and aborts of readers are sent upstream', async () => {
  const { buffer, writer, view } = opened(6)
  const signals: unknown[] = []
  const bridge = new StrandBridge(encodeHello(buffer), {
    onAcknowledge: (upTo) => signals.push(upTo),
    onAbort: () => signals.push('abort'),
  })
  const reader = new StrandView(bridge.buffer)
  writer.writeRecordBatch([1, 2, 3].map(row))
  for (const frame of framesOf(view)) bridge.apply(frame)
  reader.acknowledgeRead(2)
  await new Promise((done) => setTimeout(done, 10))
  reader.signalAbort()
  await assert.rejects(bridge.finished, StrandAbortError)
  assert.deepEqual(signals, [2, 'abort'])
  assert.throws(() => bridge.apply(encodeEnd(3)), /ended/)
})

/** Frames of a hostile sender after a hello, made from a correct frame. */
const HOSTILE: [string, (frame: Uint8Array, words: DataView) => Uint8Array][] = [
  ['nothing', () => new Uint8Array(0)],
  ['too much', () => new Uint8Array(2 ** 20 + 1)],
  ['another kind', (frame) => (frame.fill(9, 0, 1), frame)],
  ['a cut frame', (frame) => frame.subarray(0, -1)],
  ['a head alone', (frame) => frame.subarray(0, 20)],
  ['bytes that must be zero', (frame) => (frame.fill(1, 2, 3), frame)],
  ['more slots than bytes', (frame, words) => (words.setUint32(4, 3, true), frame)],
  ['more slots than the ring has', (frame, words) => (words.setUint32(4, 2 ** 31, true), frame)],
  ['another first record', (frame, words) => (words.setBigUint64(8, 1n, true), frame)],
  ['a counter beyond 2^53', (frame, words) => (words.setBigUint64(8, 2n ** 60n, true), frame)],
  ['a heap that goes back', () => encodeRecords(0, 0, -1, new Uint8Array(0), new Uint8Array(8))],
  ['more payload than bytes', (frame, words) => (words.setUint32(24, 5000, true), frame)],
  ['a payload that did not come', (frame, words) => (words.setUint32(32 + 24, 4000, true), frame)],
  ['a payload too long', (frame, words) => (words.setUint32(32 + 32, 4000, true), frame)],
  ['a payload far away', (frame, words) => (words.setUint32(32 + 28, 2 ** 19, true), frame)],
  ['an unaligned array', (frame, words) => (words.setUint32(32 + 24, 1, true), frame)],
  ['an empty frame', () => encodeRecords(0, 0, 0, new Uint8Array(0), new Uint8Array(0))],
  ['an end with another count', () => encodeEnd(7)],
  ['an end with no such status', () => encodeEnd(0, 9)],
  ['a second hello', () => encodeHello(opened(6).buffer)],
]

for (const [what, forge] of HOSTILE)
  test(`a sender that sends ${what} gets a clean error, and shows nothing`, async () => {
    const { buffer, writer, view } = opened(6)
    const bridge = new StrandBridge(encodeHello(buffer))
    const reader = new StrandView(bridge.buffer)
    writer.write(row(3)) // one slot: bitmap 0, id 4, text 8 (null), samples 24
    const frame = framesOf(view)[0]!
    const forged = forge(frame, new DataView(frame.buffer, frame.byteOffset, frame.length))
    assert.throws(() => bridge.apply(forged), BridgeFrameError)
    assert.equal(reader.committedCount, 0)
    assert.equal(reader.status, 'error')
    await assert.rejects(bridge.finished, BridgeFrameError)
  })

for (const version of VERSIONS)
  test(`v${version}: a record that points before the transfer is refused`, () => {
    const { buffer, writer, view } = opened(version)
    const hello = encodeHello(buffer)
    new DataView(hello.buffer).setBigUint64(16, 512n, true)
    const bridge = new StrandBridge(hello)
    writer.write(row(3))
    const frame = framesOf(view)[0]!
    new DataView(frame.buffer).setBigUint64(16, 512n, true) // its pointer still says 0
    assert.throws(() => bridge.apply(frame), /that were not received/)
  })

test('a sender may pass over heap bytes, which then nothing may point at', () => {
  const { buffer, writer, view } = opened(6)
  const bridge = new StrandBridge(encodeHello(buffer))
  writer.write(row(4)) // 4 bytes of text, and no samples
  const [frame] = framesOf(view)
  const words = new DataView(frame!.buffer)
  words.setBigUint64(16, 64n, true)
  const wrong = Uint8Array.from(frame!)
  words.setUint32(32 + 8, 64, true) // the text's pointer follows
  bridge.apply(frame!)
  assert.deepEqual(readAll(new StrandView(bridge.buffer)), [[4, 'xxxx', []]])
  const other = new StrandBridge(encodeHello(buffer))
  assert.throws(() => other.apply(wrong), BridgeFrameError)
  bridge.close()
})

test('noise never raises anything but a clean error', () => {
  const dice = new Dice(99)
  for (let round = 0; round < 2000; round += 1) {
    const { buffer, writer, view } = opened(round % 2 === 0 ? 5 : 6)
    const bridge = new StrandBridge(encodeHello(buffer))
    writer.writeRecordBatch([1, 2, 3].map(row))
    const frame = framesOf(view)[0]!
    for (let flips = 1 + dice.below(4); flips > 0; flips -= 1)
      frame[dice.below(dice.below(2) === 0 ? 96 : frame.length)] = dice.below(256)
    try {
      bridge.apply(frame)
      readAll(new StrandView(bridge.buffer)) // what was shown can be read
    } catch (error) {
      // Text that is no UTF-8 is the producer's; everything else is the bridge's to refuse.
      assert.match(String(error), /BridgeFrameError|text that is no UTF-8/)
    }
    bridge.close()
  }
})

test('a hello that announces no ring, or one too large, is refused', () => {
  const { buffer } = opened(6)
  const noise = encodeHello(buffer)
  noise.fill(0, 24, 28)
  assert.throws(() => new StrandBridge(noise), { check: 'magic' })
  assert.throws(() => new StrandBridge(encodeHello(buffer), { maxBytes: 4096 }), BridgeFrameError)
  assert.throws(() => new StrandBridge(encodeEnd(0)), BridgeFrameError)
  const other = encodeHello(buffer)
  other[1] = 2
  assert.throws(() => new StrandBridge(other), /format 2/)
})

test('a body of prefixed frames becomes a ring, however it is cut', async () => {
  const { buffer, writer, view } = opened(6)
  const frames = [encodeHello(buffer)]
  for (let n = 0; n < 40; n += 4) {
    writer.writeRecordBatch([n, n + 1, n + 2, n + 3].map(row))
    frames.push(...framesOf(view, 200))
    view.acknowledgeRead(n + 4)
  }
  const body = prefixed([...frames, encodeEnd(40)])
  for (const size of [1, 7, 64, 10_000]) {
    const bridge = await bridgeFromFetch(responseOf(body, size))
    const reader = new StrandView(bridge.buffer)
    const seen: unknown[][] = []
    for (let count = 0; reader.status !== 'eos' || count < 40; count = reader.committedCount) {
      await reader.waitForCommit(count)
      seen.push(...drain(reader))
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 40 }, (_, n) => row(n)),
    )
    await bridge.finished
  }
})

test('a body that breaks off, or none, is an error for everybody', async () => {
  const { buffer } = opened(6)
  const bridge = await bridgeFromFetch(responseOf(prefixed([encodeHello(buffer)]), 100))
  await assert.rejects(bridge.finished, BridgeConnectionError)
  const reader = new StrandView(bridge.buffer)
  await assert.rejects(reader.waitForCommit(0), /connection was lost/)
  await assert.rejects(bridgeFromFetch(responseOf(new Uint8Array(0), 1)), BridgeConnectionError)
  await assert.rejects(bridgeFromFetch(new Response('no', { status: 404 })), /answered 404/)
  const cut = prefixed([encodeHello(buffer)]).subarray(0, 500)
  await assert.rejects(bridgeFromFetch(responseOf(cut, 100)), BridgeConnectionError)
})

test('a WebSocket carries frames down, and acknowledgements up', async () => {
  const { buffer, writer, view } = opened(6)
  const socket = new FakeSocket()
  const opening = bridgeFromWebSocket(socket.asWebSocket())
  socket.deliver(encodeHello(buffer))
  const bridge = await opening
  const reader = new StrandView(bridge.buffer)
  writer.writeRecordBatch([1, 2].map(row))
  for (const frame of framesOf(view)) socket.deliver(frame)
  socket.deliver(encodeEnd(2))
  assert.deepEqual(drain(reader), [row(1), row(2)])
  await bridge.finished
  assert.deepEqual(socket.sent, [[16, 2]])
  assert.equal(socket.closedWith, 1000)
})

test('a WebSocket that sends nonsense is closed, and one that closes is an error', async () => {
  const { buffer } = opened(6)
  const rude = new FakeSocket()
  const opening = bridgeFromWebSocket(rude.asWebSocket())
  rude.deliver('hello')
  await assert.rejects(opening, BridgeFrameError)
  assert.equal(rude.closedWith, 4000)
  const lost = new FakeSocket()
  const bridging = bridgeFromWebSocket(lost.asWebSocket())
  lost.deliver(encodeHello(buffer))
  lost.close(1006)
  await assert.rejects((await bridging).finished, BridgeConnectionError)
})

test('closing a bridge ends the stream for its readers, after what has come', async () => {
  const { buffer, writer, view } = opened(6)
  const socket = new FakeSocket()
  const opening = bridgeFromWebSocket(socket.asWebSocket())
  socket.deliver(encodeHello(buffer))
  const bridge = await opening
  const reader = new StrandView(bridge.buffer)
  writer.write(row(1))
  for (const frame of framesOf(view)) socket.deliver(frame)
  bridge.close()
  await assert.rejects(bridge.finished, StrandClosedError)
  assert.equal(socket.closedWith, 1000)
  assert.deepEqual(drain(reader), [row(1)])
  await assert.rejects(reader.waitForCommit(1), /receiver closed the bridge/)
})

test('an abort goes up a WebSocket', async () => {
  const socket = new FakeSocket()
  const opening = bridgeFromWebSocket(socket.asWebSocket())
  socket.deliver(encodeHello(opened(6).buffer))
  const bridge = await opening
  new StrandView(bridge.buffer).signalAbort()
  await assert.rejects(bridge.finished, StrandAbortError)
  assert.deepEqual(socket.sent, [[17, 0]])
})

function responseOf(body: Uint8Array, pieceBytes: number): Response {
  let at = 0
  return new Response(
    new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull(controller) {
        if (at >= body.length) return controller.close()
        controller.enqueue(Uint8Array.from(body.subarray(at, (at += pieceBytes))))
      },
    }),
  )
}
