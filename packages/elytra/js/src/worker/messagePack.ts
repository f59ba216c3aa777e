/** MessagePack (msgpack.org), as far as the worker protocol needs it. */

import { SennitError } from '../errors.ts'

export type Packed =
  null | boolean | number | string | Uint8Array | Packed[] | { [name: string]: Packed }

const DEPTH_MAX = 64

/** The bytes of a value. */
export function pack(value: Packed): Uint8Array<ArrayBuffer> {
  const pieces: Uint8Array[] = []
  put(value, pieces)
  const made = new Uint8Array(pieces.reduce((total, piece) => total + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    made.set(piece, at)
    at += piece.length
  }
  return made
}

function put(value: Packed, pieces: Uint8Array[]): void {
  if (value === null) pieces.push(Uint8Array.of(0xc0))
  else if (typeof value === 'boolean') pieces.push(Uint8Array.of(value ? 0xc3 : 0xc2))
  else if (typeof value === 'number') pieces.push(number(value))
  else if (typeof value === 'string') {
    const text = new TextEncoder().encode(value)
    pieces.push(
      text.length < 32 ? Uint8Array.of(0xa0 | text.length) : sized(0xdb, text.length),
      text,
    )
  } else if (value instanceof Uint8Array) {
    pieces.push(sized(0xc6, value.length), value)
  } else if (Array.isArray(value)) {
    pieces.push(sized(0xdd, value.length))
    for (const item of value) put(item, pieces)
  } else {
    const members = Object.entries(value)
    pieces.push(sized(0xdf, members.length))
    for (const [name, item] of members) {
      put(name, pieces)
      put(item, pieces)
    }
  }
}

function number(value: number): Uint8Array {
  if (Number.isInteger(value) && value >= 0 && value < 128) return Uint8Array.of(value)
  const made = new Uint8Array(9)
  const view = new DataView(made.buffer)
  if (Number.isSafeInteger(value)) {
    view.setUint8(0, 0xd3)
    view.setBigInt64(1, BigInt(value))
  } else {
    view.setUint8(0, 0xcb)
    view.setFloat64(1, value)
  }
  return made
}

function sized(mark: number, size: number): Uint8Array {
  const made = new Uint8Array(5)
  made[0] = mark
  new DataView(made.buffer).setUint32(1, size)
  return made
}

/**
 * The value of some bytes.
 *
 * @throws SennitError if they are no MessagePack, or have what the protocol never uses.
 */
export function unpack(bytes: Uint8Array): Packed {
  const reader = new Reader(bytes)
  const value = reader.value(0)
  reader.end()
  return value
}

class Reader {
  private readonly view: DataView
  private at = 0

  constructor(private readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  end(): void {
    if (this.at !== this.bytes.length) throw malformed()
  }

  value(depth: number): Packed {
    if (depth > DEPTH_MAX) throw malformed()
    const mark = this.unsigned(1)
    if (mark < 0x80) return mark
    if (mark < 0x90) return this.map(mark & 15, depth)
    if (mark < 0xa0) return this.list(mark & 15, depth)
    if (mark < 0xc0) return this.text(mark & 31)
    if (mark >= 0xe0) return mark - 256
    switch (mark) {
      case 0xc0:
        return null
      case 0xc2:
      case 0xc3:
        return mark === 0xc3
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.take(this.unsigned(1 << (mark - 0xc4))).slice()
      case 0xca:
        return this.read(4, (at) => this.view.getFloat32(at))
      case 0xcb:
        return this.read(8, (at) => this.view.getFloat64(at))
      case 0xcc:
      case 0xcd:
      case 0xce:
      case 0xcf:
        return this.unsigned(1 << (mark - 0xcc))
      case 0xd0:
        return this.read(1, (at) => this.view.getInt8(at))
      case 0xd1:
        return this.read(2, (at) => this.view.getInt16(at))
      case 0xd2:
        return this.read(4, (at) => this.view.getInt32(at))
      case 0xd3:
        return this.read(8, (at) => Number(this.view.getBigInt64(at)))
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.text(this.unsigned(1 << (mark - 0xd9)))
      case 0xdc:
      case 0xdd:
        return this.list(this.unsigned(mark === 0xdc ? 2 : 4), depth)
      case 0xde:
      case 0xdf:
        return this.map(this.unsigned(mark === 0xde ? 2 : 4), depth)
    }
    throw malformed()
  }

  private unsigned(size: number): number {
    return this.read(size, (at) => {
      if (size === 1) return this.view.getUint8(at)
      if (size === 2) return this.view.getUint16(at)
      return size === 4 ? this.view.getUint32(at) : Number(this.view.getBigUint64(at))
    })
  }

  private read(size: number, value: (at: number) => number): number {
    const at = this.at
    this.take(size)
    return value(at)
  }

  private take(size: number): Uint8Array {
    const start = this.at
    if (start + size > this.bytes.length) throw malformed()
    this.at += size
    return this.bytes.subarray(start, this.at)
  }

  private text(size: number): string {
    return new TextDecoder().decode(this.take(size))
  }

  private list(count: number, depth: number): Packed[] {
    // Each item has a byte at least: a count beyond that would only reserve memory.
    if (count > this.bytes.length - this.at) throw malformed()
    return Array.from({ length: count }, () => this.value(depth + 1))
  }

  private map(count: number, depth: number): { [name: string]: Packed } {
    if (count > this.bytes.length - this.at) throw malformed()
    const members: [string, Packed][] = []
    for (let index = 0; index < count; index += 1) {
      const name = this.value(depth + 1)
      if (typeof name !== 'string') throw malformed()
      members.push([name, this.value(depth + 1)])
    }
    return Object.fromEntries(members)
  }
}

function malformed(): SennitError {
  return new SennitError('bytes that are no MessagePack', { code: 'bad-input' })
}
