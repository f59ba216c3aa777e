/** Bridges over a WebSocket, which needs credit, and over the body of a response. */

import { StrandBridge, type BridgeOptions } from './bridge.js'
import { BridgeFrameError, StrandError } from './errors.js'
import { encodeAbort, encodeAcknowledge, FRAME_BYTES_MAX } from './frames.js'

/** The options of a transport, which sets the callbacks itself. */
export type TransportOptions = Pick<BridgeOptions, 'maxBytes'>

/** The server could not be reached, or did not return a stream. */
export class BridgeConnectionError extends StrandError {
  override readonly code = 'unavailable'
}

const LOST = 'the connection was lost before the end of the stream'
const REFUSED = 4000 // a private WebSocket close code: the frames are invalid

/**
 * Receive a stream over a WebSocket whose server sends one frame per message and respects the
 * acknowledgements. Resolves once the ring is known; rejects when the first frame is no hello.
 */
export function bridgeFromWebSocket(
  target: string | URL | WebSocket,
  options: TransportOptions = {},
): Promise<StrandBridge> {
  const socket =
    typeof target === 'string' || target instanceof URL ? new WebSocket(target) : target
  socket.binaryType = 'arraybuffer'
  return new Promise((resolve, reject) => {
    let bridge: StrandBridge | null = null
    const open = (hello: Uint8Array): StrandBridge => {
      const opened = new StrandBridge(hello, {
        ...options,
        onAcknowledge: (upTo) => send(socket, encodeAcknowledge(upTo)),
        onAbort: () => send(socket, encodeAbort()),
      })
      void opened.finished.then(
        () => socket.close(1000),
        (error: unknown) => socket.close(error instanceof BridgeFrameError ? REFUSED : 1000),
      )
      return opened
    }
    socket.addEventListener('message', ({ data }: MessageEvent<unknown>) => {
      try {
        const frame = asBytes(data)
        if (bridge !== null) return bridge.closed ? undefined : bridge.apply(frame)
        bridge = open(frame)
        resolve(bridge)
      } catch (error) {
        // After the hello, `finished` and the readers get the error; before it, the caller does.
        if (bridge === null) reject(error as Error)
        else bridge.fail(String(error), error)
        socket.close(REFUSED)
      }
    })
    socket.addEventListener('close', () => {
      bridge?.fail(LOST, new BridgeConnectionError(LOST))
      reject(new BridgeConnectionError('the WebSocket closed before a stream began'))
    })
  })
}

/**
 * Receive a stream from the body of a response: frames, each prefixed with its length (u32). While
 * records are unread, no more of the body is fetched. Resolves once the ring is known.
 */
export async function bridgeFromFetch(
  answer: Response | Promise<Response>,
  options: TransportOptions = {},
): Promise<StrandBridge> {
  const response = await answer
  if (!response.ok || response.body === null)
    throw new BridgeConnectionError(`the server answered ${response.status}, and no stream`)
  const reader = response.body.getReader()
  const frames = readFrames(reader)
  try {
    const hello = await frames.next()
    if (hello.done) throw new BridgeConnectionError('the body ended before a stream began')
    const bridge = new StrandBridge(hello.value, {
      ...options,
      onAbort: () => void reader.cancel().catch(() => undefined),
    })
    void pump(bridge, frames, reader)
    return bridge
  } catch (error) {
    await reader.cancel().catch(() => undefined)
    throw error
  }
}

async function pump(
  bridge: StrandBridge,
  frames: AsyncGenerator<Uint8Array, void>,
  reader: ReadableStreamDefaultReader<Uint8Array>,
): Promise<void> {
  try {
    for await (const frame of frames) {
      await bridge.applyWhenRoom(frame)
      if (bridge.closed) break
    }
    bridge.fail(LOST, new BridgeConnectionError(LOST))
  } catch (error) {
    bridge.fail(String(error), error)
  }
  await reader.cancel().catch(() => undefined)
}

/** Cut a body into its frames; BridgeFrameError for a length that no frame has. */
async function* readFrames(
  reader: ReadableStreamDefaultReader<Uint8Array>,
): AsyncGenerator<Uint8Array, void> {
  let pending = new Uint8Array(64 * 1024)
  let start = 0
  let end = 0
  const fill = async (wanted: number): Promise<boolean> => {
    while (end - start < wanted) {
      const { done, value } = await reader.read()
      if (done) return false
      if (end + value.length > pending.length) {
        const size = end - start + value.length
        const grown = size > pending.length ? new Uint8Array(2 * size) : pending
        grown.set(pending.subarray(start, end))
        pending = grown
        end -= start
        start = 0
      }
      pending.set(value, end)
      end += value.length
    }
    return true
  }
  while (await fill(4)) {
    const size = new DataView(pending.buffer, start, 4).getUint32(0, true)
    if (size > FRAME_BYTES_MAX) throw new BridgeFrameError(`no frame has ${size} bytes`)
    if (!(await fill(4 + size))) throw new BridgeConnectionError(LOST)
    yield pending.slice(start + 4, start + 4 + size)
    start += 4 + size
  }
}

function asBytes(data: unknown): Uint8Array {
  if (data instanceof ArrayBuffer) return new Uint8Array(data)
  throw new BridgeFrameError('a frame is a binary message')
}

function send(socket: WebSocket, message: Uint8Array<ArrayBuffer>): void {
  if (socket.readyState === 1) socket.send(message)
}
