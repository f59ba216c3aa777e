/** Flatbuffers: reading tables by their slots, and writing small ones. */

/** A table in a buffer, whose members are found by slot. */
export class Table {
  constructor(
    private readonly view: DataView,
    private readonly at: number,
  ) {}

  /** The root table of a buffer. */
  static root(bytes: Uint8Array): Table {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    return new Table(view, view.getUint32(0, true))
  }

  int8(slot: number, otherwise = 0): number {
    const at = this.member(slot)
    return at === 0 ? otherwise : this.view.getUint8(at)
  }

  int16(slot: number, otherwise = 0): number {
    const at = this.member(slot)
    return at === 0 ? otherwise : this.view.getInt16(at, true)
  }

  int32(slot: number, otherwise = 0): number {
    const at = this.member(slot)
    return at === 0 ? otherwise : this.view.getInt32(at, true)
  }

  int64(slot: number): number {
    const at = this.member(slot)
    return at === 0 ? 0 : Number(this.view.getBigInt64(at, true))
  }

  has(slot: number): boolean {
    return this.member(slot) !== 0
  }

  table(slot: number): Table | null {
    const at = this.member(slot)
    return at === 0 ? null : new Table(this.view, at + this.view.getUint32(at, true))
  }

  text(slot: number): string | null {
    const at = this.member(slot)
    if (at === 0) return null
    const start = at + this.view.getUint32(at, true)
    const size = this.view.getUint32(start, true)
    const { buffer, byteOffset } = this.view
    return new TextDecoder().decode(new Uint8Array(buffer, byteOffset + start + 4, size))
  }

  /** The tables of a vector. */
  tables(slot: number): Table[] {
    const [start, count] = this.vector(slot)
    return Array.from({ length: count }, (_, index) => {
      const at = start + 4 * index
      return new Table(this.view, at + this.view.getUint32(at, true))
    })
  }

  /** The structs of a vector, each of two 64-bit integers. */
  pairs(slot: number): [number, number][] {
    const [start, count] = this.vector(slot)
    return Array.from({ length: count }, (_, index) => {
      const at = start + 16 * index
      const first = Number(this.view.getBigInt64(at, true))
      return [first, Number(this.view.getBigInt64(at + 8, true))]
    })
  }

  private vector(slot: number): [start: number, count: number] {
    const at = this.member(slot)
    if (at === 0) return [0, 0]
    const start = at + this.view.getUint32(at, true)
    return [start + 4, this.view.getUint32(start, true)]
  }

  /** Where a member is; 0 if the table does not have it. */
  private member(slot: number): number {
    const vtable = this.at - this.view.getInt32(this.at, true)
    const place = 4 + 2 * slot
    if (place >= this.view.getUint16(vtable, true)) return 0
    const offset = this.view.getUint16(vtable + place, true)
    return offset === 0 ? 0 : this.at + offset
  }
}

/** A member of a table to write: a scalar of a size, or something that it points to. */
export type Member =
  | { size: 1 | 2 | 4 | 8; value: number }
  | { text: string }
  | { table: Members }
  | { tables: Members[] }
  | { pairs: [number, number][] }

/** Members by slot; slots that are left out have their default. */
export type Members = Record<number, Member>

/** The bytes of a buffer with one root table. */
export function writeBuffer(root: Members): Uint8Array<ArrayBuffer> {
  const writer = new Writer()
  writer.reserve(4)
  writer.point(0, writer.table(root))
  return writer.bytes()
}

/** Writes front to back: what a table points to follows it. */
class Writer {
  private view = new DataView(new ArrayBuffer(1024))
  private size = 0

  bytes(): Uint8Array<ArrayBuffer> {
    this.align(8)
    return new Uint8Array(this.view.buffer as ArrayBuffer, 0, this.size)
  }

  reserve(count: number): number {
    const at = this.size
    this.size += count
    if (this.size > this.view.byteLength) {
      const larger = new Uint8Array(2 * this.size)
      larger.set(new Uint8Array(this.view.buffer))
      this.view = new DataView(larger.buffer)
    }
    return at
  }

  point(at: number, target: number): void {
    this.view.setUint32(at, target - at, true)
  }

  table(members: Members): number {
    const slots = Object.keys(members).map(Number)
    const count = slots.length > 0 ? Math.max(...slots) + 1 : 0
    this.align(8)
    const vtable = this.reserve(4 + 2 * count)
    this.align(8)
    const table = this.reserve(4)
    this.view.setInt32(table, table - vtable, true)
    const places = slots.map((slot) => {
      const member = members[slot]
      const size = member && 'size' in member ? member.size : 4
      this.align(size)
      const at = this.reserve(size)
      this.view.setUint16(vtable + 4 + 2 * slot, at - table, true)
      return [at, member] as const
    })
    this.view.setUint16(vtable, 4 + 2 * count, true)
    this.view.setUint16(vtable + 2, this.size - table, true)
    for (const [at, member] of places) if (member) this.member(at, member)
    return table
  }

  private member(at: number, member: Member): void {
    if ('size' in member) this.scalar(at, member.size, member.value)
    else if ('text' in member) this.point(at, this.text(member.text))
    else if ('table' in member) this.point(at, this.table(member.table))
    else if ('tables' in member) this.point(at, this.tables(member.tables))
    else this.point(at, this.pairs(member.pairs))
  }

  private scalar(at: number, size: 1 | 2 | 4 | 8, value: number): void {
    if (size === 1) this.view.setUint8(at, value)
    else if (size === 2) this.view.setInt16(at, value, true)
    else if (size === 4) this.view.setInt32(at, value, true)
    else this.view.setBigInt64(at, BigInt(value), true)
  }

  private text(text: string): number {
    const encoded = new TextEncoder().encode(text)
    this.align(4)
    const at = this.reserve(4 + encoded.length + 1)
    this.view.setUint32(at, encoded.length, true)
    new Uint8Array(this.view.buffer).set(encoded, at + 4)
    return at
  }

  private tables(tables: readonly Members[]): number {
    this.align(4)
    const at = this.reserve(4 + 4 * tables.length)
    this.view.setUint32(at, tables.length, true)
    tables.forEach((each, index) => this.point(at + 4 + 4 * index, this.table(each)))
    return at
  }

  private pairs(pairs: readonly [number, number][]): number {
    // The count comes before the structs, which are aligned to 8 bytes.
    this.align(8)
    this.reserve(4)
    const at = this.reserve(4 + 16 * pairs.length)
    this.view.setUint32(at, pairs.length, true)
    pairs.forEach(([first, second], index) => {
      this.view.setBigInt64(at + 4 + 16 * index, BigInt(first), true)
      this.view.setBigInt64(at + 12 + 16 * index, BigInt(second), true)
    })
    return at
  }

  private align(size: number): void {
    this.reserve((size - (this.size % size)) % size)
  }
}
