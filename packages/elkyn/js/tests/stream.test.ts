import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MessageChannel } from 'node:worker_threads'

import { Refused } from '../src/errors.ts'
import { type Port, serveStreams, sharedStreams } from '../src/shared.ts'
import { EventParser, positionOf, type StreamEvent } from '../src/stream.ts'
import { FakeStreams, put, recorder, REQUEST } from './fakeStreams.ts'

const TEXT =
  'event: put\r\ndata: {"path":"/",\rdata: "data":1}\nid: 7\n\n: nothing\n\nevent:keep-alive\ndata: null\n\n'

test('an id begins with a position, with any suffix', () => {
  assert.deepEqual(['12', '12.2', '12.1.1763780000000', null].map(positionOf), [12, 12, 12, null])
})

test('messages are the same wherever their text is cut', () => {
  const whole = new EventParser().feed(TEXT)
  assert.deepEqual(whole, [
    { type: 'put', data: '{"path":"/",\n"data":1}', id: '7' },
    { type: 'keep-alive', data: 'null', id: '7' },
  ])
  for (let first = 0; first <= TEXT.length; first += 1) {
    const parser = new EventParser()
    assert.deepEqual(
      [...parser.feed(TEXT.slice(0, first)), ...parser.feed(TEXT.slice(first))],
      whole,
    )
  }
})

test('a worker opens for each page, and closes when the page says so or goes', async () => {
  const fake = new FakeStreams()
  const serve = serveStreams(fake.open)
  const [first, second] = [join(serve), join(serve)]
  const [firstEvents, secondEvents]: [StreamEvent[], StreamEvent[]] = [[], []]
  const event = put('/', { n: 1 }, '1')

  const firstStream = first.open(REQUEST, recorder(firstEvents))
  second.open(REQUEST, recorder(secondEvents))
  second.open(REQUEST, recorder([]))
  await until(() => fake.opened.length === 3)
  fake.opened.forEach((listener) => listener.event(event))
  await until(() => firstEvents.length === 1 && secondEvents.length === 1)
  assert.deepEqual([firstEvents[0], secondEvents[0]], [event, event])
  firstStream.close()
  await until(() => fake.closed === 1)
  fake.opened[0]?.event(event)
  second.port.close()
  await until(() => fake.closed === 3)
  assert.equal(firstEvents.length, 1)
})

test('without a SharedWorker a page has streams of its own', () => {
  const fake = new FakeStreams()
  const stream = sharedStreams(null, fake.open)(REQUEST, recorder([]))
  assert.equal(fake.opened.length, 1)
  stream.close()
  assert.equal(fake.closed, 1)
})

test('a page whose worker does not load listens without it', () => {
  const fake = new FakeStreams()
  const { port1 } = new MessageChannel()
  ports.push(port1)
  let fail: () => void = () => assert.fail('no listener')
  const worker = {
    port: port1 as unknown as Port,
    addEventListener: (_type: 'error', listener: () => void) => (fail = listener),
  }
  const open = sharedStreams(worker, fake.open)
  const received: StreamEvent[] = []
  const stream = open(REQUEST, recorder(received))
  assert.equal(fake.opened.length, 0)
  fail()
  fake.opened[0]?.event(put('/', 1))
  open(REQUEST, recorder([]))
  assert.deepEqual([received.length, fake.opened.length], [1, 2])
  stream.close()
  assert.equal(fake.closed, 1)
})

test('a page learns of the connection and a refusal through its worker, and retries', async () => {
  const fake = new FakeStreams()
  const received: unknown[] = []
  const stream = join(serveStreams(fake.open)).open(REQUEST, {
    event: () => undefined,
    connection: (connection) => received.push(connection),
    refused: (error) => received.push(error),
  })
  await until(() => fake.opened.length === 1)
  fake.opened[0]?.connection({ state: 'offline', retryAtMs: 7 })
  stream.retry()
  await until(() => fake.opened[0]?.retries === 1 && received.length === 1)
  fake.opened[0]?.refused(new Refused(401, 'no'))
  await until(() => received.length === 2)
  assert.deepEqual(received, [{ state: 'offline', retryAtMs: 7 }, new Refused(401, 'no')])
})

const ports: { close(): void }[] = []
after(() => ports.forEach((port) => port.close()))

function join(serve: (port: Port) => void) {
  const { port1, port2 } = new MessageChannel()
  ports.push(port1)
  serve(port2 as unknown as Port)
  const port = port1 as unknown as Port
  const worker = { port, addEventListener: () => undefined }
  return { port: port1, open: sharedStreams(worker, () => assert.fail('the worker is used')) }
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2))
}
