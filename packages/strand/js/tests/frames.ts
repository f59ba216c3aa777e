/** A sender for tests, written from spec/strand-wire.md alone: it shares no code with the bridge. */

import type { StrandView } from '../src/index.js'

const sentHeap = new WeakMap<StrandView, { first: number; heap: number }>()

export function encodeHello(ring: SharedArrayBuffer, first = 0): Uint8Array {
  const frame = new Uint8Array(24 + 3072)
  const words = new DataView(frame.buffer)
  frame.set([1, 1])
  words.setUint32(4, 3072, true)
  words.setBigUint64(8, BigInt(first), true)
  frame.set(new Uint8Array(ring, 0, 3072), 24)
  return frame
}

export function encodeRecords(
  count: number,
  first: number,
  heap: number,
  slots: Uint8Array,
  payloads: Uint8Array,
): Uint8Array {
  const frame = new Uint8Array(32 + slots.length + payloads.length)
  const words = new DataView(frame.buffer)
  frame[0] = 2
  words.setUint32(4, count, true)
  words.setBigUint64(8, BigInt(first), true)
  words.setBigInt64(16, BigInt(heap), true)
  words.setUint32(24, payloads.length, true)
  frame.set(slots, 32)
  frame.set(payloads, 32 + slots.length)
  return frame
}

export function encodeEnd(committed: number, status = 2): Uint8Array {
  const frame = new Uint8Array(16)
  frame.set([3, status])
  new DataView(frame.buffer).setBigUint64(8, BigInt(committed), true)
  return frame
}

/** Frames for what was committed since the last call: payloads first, of `most` bytes at most each. */
export function framesOf(view: StrandView, most = 65536, from = 0): Uint8Array[] {
  const { map, buffer } = view
  const at = sentHeap.get(view) ?? { first: from, heap: 0 }
  const heap = Number(new BigUint64Array(buffer, 0, 512)[3160 / 8])
  const frames: Uint8Array[] = []
  const { indexStart, indexCapacity, recordStride, heapStart, heapCapacity } = map
  while (at.heap < heap) {
    const size = Math.min(most, heap - at.heap)
    const piece = around(buffer, heapStart, heapCapacity, at.heap, size)
    if (at.heap + size < heap)
      frames.push(encodeRecords(0, at.first, at.heap, new Uint8Array(0), piece))
    else frames.push(...withSlots(piece))
    at.heap += size
  }
  if (at.first < view.committedCount) frames.push(...withSlots(new Uint8Array(0)))
  sentHeap.set(view, at)
  return frames

  function withSlots(piece: Uint8Array): Uint8Array[] {
    const made: Uint8Array[] = []
    for (let payload = piece; at.first < view.committedCount; payload = new Uint8Array(0)) {
      const room = Math.max(1, Math.floor(most / recordStride))
      const count = Math.min(room, view.committedCount - at.first)
      const size = indexCapacity * recordStride
      const slots = around(buffer, indexStart, size, at.first * recordStride, count * recordStride)
      made.push(encodeRecords(count, at.first, at.heap, slots, payload))
      at.first += count
      at.heap += payload.length
    }
    at.heap -= piece.length // the caller counts it
    return made
  }
}

export function prefixed(frames: readonly Uint8Array[]): Uint8Array {
  const parts = frames.flatMap((frame) => [
    new Uint8Array(new Uint32Array([frame.length]).buffer),
    frame,
  ])
  return new Uint8Array(Buffer.concat(parts))
}

/** What a bridge uses of a WebSocket, in memory. */
export class FakeSocket extends EventTarget {
  readyState = 1
  binaryType = ''
  closedWith: number | null = null
  readonly sent: [number, number][] = []

  asWebSocket(): WebSocket {
    return this as unknown as WebSocket
  }

  deliver(data: Uint8Array | string): void {
    const body = typeof data === 'string' ? data : Uint8Array.from(data).buffer
    this.dispatchEvent(new MessageEvent('message', { data: body }))
  }

  send(message: Uint8Array): void {
    this.sent.push([message[0]!, Number(new DataView(message.buffer).getBigUint64(8, true))])
  }

  close(code: number): void {
    if (this.readyState === 3) return
    this.readyState = 3
    this.closedWith = code
    this.dispatchEvent(new Event('close'))
  }
}

function around(
  buffer: SharedArrayBuffer,
  start: number,
  size: number,
  at: number,
  count: number,
): Uint8Array {
  const bytes = new Uint8Array(buffer)
  return Uint8Array.from({ length: count }, (_, index) => bytes[start + ((at + index) % size)]!)
}
