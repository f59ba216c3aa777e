/** WebSockets against a server at ELKYN_URL with ELKYN_TOKEN; POST to ELKYN_CONTROL/stop and /start. */

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ElkynClient } from '../src/client.ts'
import { LiveValues } from '../src/liveValues.ts'
import { socketStreams } from '../src/socket.ts'
import type { Json } from '../src/values.ts'

const { ELKYN_URL: url = '', ELKYN_TOKEN: token = '', ELKYN_CONTROL: control = '' } = process.env

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5))
}

async function server(what: 'stop' | 'start'): Promise<void> {
  const answer = await fetch(`${control}/${what}`, { method: 'POST' })
  assert.equal(answer.status, 200)
}

test('a socket that was lost receives the missed events, and nothing else', async () => {
  let chars = 0
  const sockets: WebSocket[] = []
  const Plain = globalThis.WebSocket
  globalThis.WebSocket = class extends Plain {
    constructor(address: string | URL) {
      super(address)
      sockets.push(this)
      this.addEventListener('message', ({ data }) => (chars += String(data).length))
    }
  }
  const [client, other] = [new ElkynClient(url, { token }), new ElkynClient(url, { token })]
  try {
    const at = '/js/socket'
    const rows = Array.from({ length: 300 }, (_, n) => [`k${n}`, { text: 'x'.repeat(1000), n }])
    await other.set(at, Object.fromEntries(rows) as Json & object)
    await other.set(`${at}-quiet`, 'y'.repeat(50_000))
    type Row = { n?: number }
    let received: { [key: string]: Row } = {}
    let quiet = 0
    client.on(at, 'value', (value) => (received = value as typeof received))
    client.on(`${at}-quiet`, 'value', () => (quiet += 1))
    await until(() => Object.keys(received).length === 300 && quiet === 1)
    assert.ok(chars > 350_000)

    const lose = [
      async () => sockets.forEach((socket) => socket.close()),
      async () => {
        await server('stop')
        await server('start')
      },
    ]
    for (const [round, losing] of lose.entries()) {
      chars = 0
      const before = sockets.length
      await losing()
      await other.update(at, { 'k1/n': -1 - round, [`new${round}`]: { n: round } })
      await until(() => sockets.length > before && received[`new${round}`]?.n === round)
      assert.equal(received.k1?.n, -1 - round)
      await other.set(`${at}/k2/n`, -1 - round)
      await until(() => received.k2?.n === -1 - round)
      assert.equal(Object.keys(received).length, 301 + round)
      assert.ok(chars < 3000, `${chars} characters came again`)
    }
    assert.equal(quiet, 1)
  } finally {
    client.close()
    other.close()
    globalThis.WebSocket = Plain
  }
})

test('a new path on an open socket is online', async () => {
  const live = new LiveValues(url, { token, streams: socketStreams() })
  const isOnline = (path: string) => live.get(path).connection.state === 'online'
  const first = live.subscribe('/js/first', () => undefined)
  await until(() => isOnline('/js/first'))
  const second = live.subscribe('/js/second', () => undefined)
  await until(() => isOnline('/js/second') && live.get('/js/second').isKnown)
  first()
  second()
})
