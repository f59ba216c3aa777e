import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MessageChannel } from 'node:worker_threads'

import {
  backoff,
  EventParser,
  type OpenStream,
  positionOf,
  type StreamEvent,
  type StreamListener,
  type StreamRequest,
} from '../src/stream.js'
import { type Port, serveStreams, sharedStreams } from '../src/shared.js'

const TEXT =
  'event: put\r\ndata: {"path":"/",\rdata: "data":1}\nid: 7\n\n: nothing\n\nevent:keep-alive\ndata: null\n\n'

test('an id begins with a position, whatever is behind it', () => {
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

test('waits grow, up to a limit', () => {
  for (let failures = 0; failures < 40; failures += 1) {
    const wait = backoff(failures)
    assert.ok(wait >= 125 && wait <= 15_000)
  }
  assert.ok(backoff(10) > backoff(0))
})

test('a worker opens for each page, and closes when the page says so or goes', async () => {
  const opened = new Opened()
  const serve = serveStreams(opened.open)
  const [first, second] = [join(serve), join(serve)]
  const [early, late]: [StreamEvent[], StreamEvent[]] = [[], []]
  const event: StreamEvent = { type: 'put', path: '/', data: { n: 1 }, id: '1' }

  const stopFirst = first.open(REQUEST, recorder(early))
  second.open(REQUEST, recorder(late))
  second.open(REQUEST, recorder([]))
  await until(() => opened.listeners.length === 3)
  opened.listeners.forEach((listener) => listener.event(event))
  await until(() => early.length === 1 && late.length === 1)
  assert.deepEqual([early[0], late[0]], [event, event])
  stopFirst()
  await until(() => opened.closed === 1)
  opened.listeners[0]?.event(event)
  second.port.close()
  await until(() => opened.closed === 3)
  assert.equal(early.length, 1)
})

test('without a SharedWorker a page has streams of its own', () => {
  const opened = new Opened()
  const stop = sharedStreams(null, opened.open)(REQUEST, recorder([]))
  assert.equal(opened.listeners.length, 1)
  stop()
  assert.equal(opened.closed, 1)
})

test('a page whose worker does not load listens without it', () => {
  const opened = new Opened()
  const { port1 } = new MessageChannel()
  ports.push(port1)
  let fail: () => void = () => assert.fail('nobody hears')
  const worker = {
    port: port1 as unknown as Port,
    addEventListener: (_type: 'error', listener: () => void) => (fail = listener),
  }
  const open = sharedStreams(worker, opened.open)
  const heard: StreamEvent[] = []
  const stop = open(REQUEST, recorder(heard))
  assert.equal(opened.listeners.length, 0)
  fail()
  opened.listeners[0]?.event({ type: 'put', path: '/', data: 1, id: null })
  open(REQUEST, recorder([]))
  assert.deepEqual([heard.length, opened.listeners.length], [1, 2])
  stop()
  assert.equal(opened.closed, 1)
})

const ports: { close(): void }[] = []
after(() => ports.forEach((port) => port.close()))

const REQUEST: StreamRequest = {
  base: 'http://x',
  path: ['a'],
  namespace: null,
  token: '',
  lastEventId: null,
}

class Opened {
  closed = 0
  readonly listeners: StreamListener[] = []
  readonly open: OpenStream = (_request, listener) => {
    this.listeners.push(listener)
    return () => (this.closed += 1)
  }
}

function join(serve: (port: Port) => void) {
  const { port1, port2 } = new MessageChannel()
  ports.push(port1)
  serve(port2 as unknown as Port)
  const port = port1 as unknown as Port
  return { port: port1, open: sharedStreams({ port, addEventListener: () => undefined }) }
}

function recorder(events: StreamEvent[]): StreamListener {
  return { event: (event) => events.push(event), online: () => undefined, refused: () => undefined }
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2))
}
