import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MessageChannel } from 'node:worker_threads'

import {
  backoff,
  EventParser,
  type OpenStream,
  type StreamEvent,
  type StreamListener,
} from '../src/stream'
import { type Port, serveStreams, sharedStreams } from '../src/shared'

const TEXT =
  'event: put\r\ndata: {"path":"/",\rdata: "data":1}\nid: 7\n\n: nothing\n\nevent:keep-alive\ndata: null\n\n'

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

test('pages that follow one path share one stream, and late ones get the value', async () => {
  const opened = new Opened()
  const serve = serveStreams(opened.open)
  const [first, second] = [join(serve), join(serve)]
  const early: StreamEvent[] = []
  const late: StreamEvent[] = []
  const request = { url: 'http://x/a.json', headers: {}, lastEventId: null }

  const stopFirst = first(request, recorder(early))
  await until(() => opened.listener !== null)
  opened.listener?.event({ type: 'put', path: '/', data: { n: 1 }, id: '1' })
  opened.listener?.event({ type: 'patch', path: '/', data: { m: 2 }, id: '2' })
  const stopSecond = second(request, recorder(late))
  await until(() => late.length === 1)
  opened.listener?.event({ type: 'put', path: '/n', data: 3, id: '3' })
  await until(() => early.length === 3 && late.length === 2)

  assert.equal(opened.count, 1)
  assert.deepEqual(late[0], { type: 'put', path: '/', data: { n: 1, m: 2 }, id: '2' })
  assert.deepEqual(early[2], late[1])
  stopFirst()
  opened.listener?.event({ type: 'put', path: '/n', data: 4, id: '4' })
  await until(() => late.length === 3)
  assert.deepEqual([early.length, opened.closed], [3, 0])
  stopSecond()
  await until(() => opened.closed === 1)
})

const ports: { close(): void }[] = []
after(() => ports.forEach((port) => port.close()))

class Opened {
  count = 0
  closed = 0
  listener: StreamListener | null = null
  readonly open: OpenStream = (_request, listener) => {
    this.count += 1
    this.listener = listener
    return () => (this.closed += 1)
  }
}

function join(serve: (port: Port) => void): OpenStream {
  const { port1, port2 } = new MessageChannel()
  ports.push(port1)
  serve(port2 as unknown as Port)
  return sharedStreams(port1 as unknown as Port)
}

function recorder(events: StreamEvent[]): StreamListener {
  return { event: (event) => events.push(event), online: () => undefined, refused: () => undefined }
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2))
}
