/**
 * The field types. Written by tools/strand_types.py from the table in src/strand/_types.h: change
 * that, not this file.
 */

/** What a type is, apart from its name. */
export interface TypeFacts {
  /** Its number on the wire. */
  readonly tag: number
  readonly kind: 'integer' | 'float' | 'boolean' | 'text' | 'handle' | 'json' | 'bytes' | 'array'
  /** A typed array of the number in the slot, or of the items of a payload. */
  readonly items: ItemsConstructor<ArrayBufferView>
  /** The range of integers; bigints for 64 bits. */
  readonly least?: number | bigint
  readonly most?: number | bigint
}

/** The constructor of a typed array over a part of a buffer. */
export interface ItemsConstructor<T> {
  readonly BYTES_PER_ELEMENT: number
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): T
  from(values: readonly unknown[], toNumber: (value: unknown) => never): T
}

export const FIELD_TYPES = {
  i32: { tag: 0, kind: 'integer', items: Int32Array, least: -2147483648, most: 2147483647 },
  u32: { tag: 1, kind: 'integer', items: Uint32Array, least: 0, most: 4294967295 },
  i64: {
    tag: 2,
    kind: 'integer',
    items: BigInt64Array,
    least: -9223372036854775808n,
    most: 9223372036854775807n,
  },
  f32: { tag: 3, kind: 'float', items: Float32Array },
  f64: { tag: 4, kind: 'float', items: Float64Array },
  u16: { tag: 5, kind: 'integer', items: Uint16Array, least: 0, most: 65535 },
  u8: { tag: 6, kind: 'integer', items: Uint8Array, least: 0, most: 255 },
  bool8: { tag: 7, kind: 'boolean', items: Uint8Array },
  utf8: { tag: 8, kind: 'text', items: Uint8Array },
  utf8_ref: { tag: 9, kind: 'handle', items: Uint32Array },
  json: { tag: 10, kind: 'json', items: Uint8Array },
  bytes: { tag: 11, kind: 'bytes', items: Uint8Array },
  i32_array: { tag: 12, kind: 'array', items: Int32Array, least: -2147483648, most: 2147483647 },
  f32_array: { tag: 13, kind: 'array', items: Float32Array },
} as const satisfies Record<string, TypeFacts>

/** The name of a field type. */
export type FieldType = keyof typeof FIELD_TYPES

/** A getter for each type; `RecordCursor` finds the field and decodes payloads. */
export abstract class FieldGetters {
  protected abstract readonly view: DataView

  /** The type of a field; RangeError for an unknown name. */
  protected abstract typeOf(name: string): FieldType

  /** Byte offset of a field of this type in the record under the cursor, -1 when it is null. */
  protected abstract locate(name: string, type: FieldType): number

  /** The string of a handle. */
  protected abstract interned(handle: number): string | null

  /** The text or JSON value whose pointer is at `at`. */
  protected abstract decoded(name: string, at: number): unknown

  /** A view of the payload whose pointer is at `at`. */
  protected abstract items<T extends ArrayBufferView>(at: number, type: ItemsConstructor<T>): T

  getI32(name: string): number | null {
    const at = this.locate(name, 'i32')
    return at < 0 ? null : this.view.getInt32(at, true)
  }

  getU32(name: string): number | null {
    const at = this.locate(name, 'u32')
    return at < 0 ? null : this.view.getUint32(at, true)
  }

  getI64(name: string): bigint | null {
    const at = this.locate(name, 'i64')
    return at < 0 ? null : this.view.getBigInt64(at, true)
  }

  getF32(name: string): number | null {
    const at = this.locate(name, 'f32')
    return at < 0 ? null : this.view.getFloat32(at, true)
  }

  getF64(name: string): number | null {
    const at = this.locate(name, 'f64')
    return at < 0 ? null : this.view.getFloat64(at, true)
  }

  getU16(name: string): number | null {
    const at = this.locate(name, 'u16')
    return at < 0 ? null : this.view.getUint16(at, true)
  }

  getU8(name: string): number | null {
    const at = this.locate(name, 'u8')
    return at < 0 ? null : this.view.getUint8(at)
  }

  getBool(name: string): boolean | null {
    const at = this.locate(name, 'bool8')
    return at < 0 ? null : this.view.getUint8(at) !== 0
  }

  /** Decoded once for a record. */
  getString(name: string): string | null {
    const at = this.locate(name, 'utf8')
    return at < 0 ? null : (this.decoded(name, at) as string)
  }

  /** The string of a handle; null also when the intern table has no such handle. */
  getRef(name: string): string | null {
    const at = this.locate(name, 'utf8_ref')
    return at < 0 ? null : this.interned(this.view.getUint32(at, true))
  }

  /** Parsed once for a record. */
  getJson(name: string): unknown {
    const at = this.locate(name, 'json')
    return at < 0 ? null : this.decoded(name, at)
  }

  /** A view into the ring, not a copy. */
  getBytes(name: string): Uint8Array | null {
    const at = this.locate(name, 'bytes')
    return at < 0 ? null : this.items(at, Uint8Array)
  }

  /** A view into the ring, not a copy. */
  getI32Array(name: string): Int32Array | null {
    const at = this.locate(name, 'i32_array')
    return at < 0 ? null : this.items(at, Int32Array)
  }

  /** A view into the ring, not a copy. */
  getF32Array(name: string): Float32Array | null {
    const at = this.locate(name, 'f32_array')
    return at < 0 ? null : this.items(at, Float32Array)
  }

  /** The value of a field of any type; null when there is none. */
  get(name: string): unknown {
    switch (this.typeOf(name)) {
      case 'i32':
        return this.getI32(name)
      case 'u32':
        return this.getU32(name)
      case 'i64':
        return this.getI64(name)
      case 'f32':
        return this.getF32(name)
      case 'f64':
        return this.getF64(name)
      case 'u16':
        return this.getU16(name)
      case 'u8':
        return this.getU8(name)
      case 'bool8':
        return this.getBool(name)
      case 'utf8':
        return this.getString(name)
      case 'utf8_ref':
        return this.getRef(name)
      case 'json':
        return this.getJson(name)
      case 'bytes':
        return this.getBytes(name)
      case 'i32_array':
        return this.getI32Array(name)
      case 'f32_array':
        return this.getF32Array(name)
    }
  }
}

/** Store a checked value in a slot; heap types are stored as pointers, and not here. */
export function storeNumber(view: DataView, at: number, type: FieldType, value: unknown): void {
  switch (type) {
    case 'i32':
      return view.setInt32(at, value as number, true)
    case 'u32':
      return view.setUint32(at, value as number, true)
    case 'i64':
      return view.setBigInt64(at, value as bigint, true)
    case 'f32':
      return view.setFloat32(at, value as number, true)
    case 'f64':
      return view.setFloat64(at, value as number, true)
    case 'u16':
      return view.setUint16(at, value as number, true)
    case 'u8':
      return view.setUint8(at, value as number)
    case 'bool8':
      return view.setUint8(at, value as number)
    case 'utf8_ref':
      return view.setUint32(at, value as number, true)
  }
}
