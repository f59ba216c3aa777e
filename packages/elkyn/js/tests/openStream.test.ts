import assert from 'node:assert/strict'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'

import { type Connection, openStream, type StreamEvent } from '../src/stream.ts'

type Answer = (request: IncomingMessage, response: ServerResponse) => void

/** Serve `answers`, one each request, the last one again; returns the events and states of a stream. */
async function stream(
  answers: Answer[],
  check: (received: Received) => Promise<void>,
): Promise<void> {
  const requests: IncomingMessage[] = []
  const server = createServer((request, response) => {
    const answer = answers[Math.min(requests.length, answers.length - 1)]
    requests.push(request)
    answer?.(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const received: Received = {
    events: [],
    states: [],
    refused: [],
    requests,
    retry: () => undefined,
  }
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const opened = openStream(
    { base, path: ['jobs'], namespace: 'sys', token: 'secret', lastEventId: null },
    {
      event: (event) => received.events.push(event),
      connection: (connection) => received.states.push(connection),
      refused: ({ status, message }) => received.refused.push([status, message]),
    },
  )
  received.retry = opened.retry
  try {
    await check(received)
  } finally {
    opened.close()
    server.closeAllConnections()
    server.close()
  }
}

interface Received {
  events: StreamEvent[]
  states: Connection[]
  refused: [number, string][]
  requests: IncomingMessage[]
  retry(): void
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2))
}

const begin = (response: ServerResponse) =>
  response.writeHead(200, { 'content-type': 'text/event-stream' })

const sends =
  (...text: string[]): Answer =>
  (_request, response) =>
    void begin(response).end(text.join(''))

const stays: Answer = (_request, response) =>
  void begin(response).write('event: put\ndata: {"path":"/","data":2}\nid: 8\n\n')

test('a stream that ends is resumed after its last event', async () => {
  const first = sends('event: put\ndata: {"path":"/","data":1}\nid: 7\n\n', 'event: put\ndata: {')
  await stream([first, stays], async ({ events, states, requests, retry }) => {
    await until(() => states.length === 2)
    retry()
    await until(() => events.length === 2)
    assert.deepEqual(
      requests.map(({ url, headers }) => [url, headers.authorization, headers['last-event-id']]),
      [
        ['/jobs.json?ns=sys', 'Bearer secret', undefined],
        ['/jobs.json?ns=sys', 'Bearer secret', '7'],
      ],
    )
    assert.deepEqual(
      events.map(({ data, id }) => [data, id]),
      [
        [1, '7'],
        [2, '8'],
      ],
    )
    assert.deepEqual(
      states.map(({ state }) => state),
      ['online', 'offline', 'online'],
    )
  })
})

test('a server that answers with an error may recover; a refusal is final', async () => {
  const fails: Answer = (_request, response) => void response.writeHead(503).end('later')
  const refuses: Answer = (_request, response) =>
    void response.writeHead(403).end('{"error":"not for you"}')
  await stream([fails, refuses], async ({ states, refused, requests, retry }) => {
    await until(() => states.length === 1)
    assert.ok(states[0]?.state === 'offline' && states[0].retryAtMs > Date.now() - 1000)
    retry()
    await until(() => refused.length === 1)
    assert.deepEqual(refused, [[403, 'not for you']])
    retry()
    assert.equal(requests.length, 2)
  })
})

for (const [type, message] of [
  ['cancel', 'Permission denied'],
  ['auth_revoked', 'credentials were revoked: expired'],
])
  test(`a stream that the server ends by ${type} is refused`, async () => {
    await stream([sends(`event: ${type}\ndata: expired\n\n`)], async ({ refused }) => {
      await until(() => refused.length === 1)
      assert.deepEqual(refused, [[401, message]])
    })
  })
