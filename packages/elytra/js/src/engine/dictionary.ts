/**
 * Texts as numbers: a column has codes, and its dictionary the bytes of each code.
 *
 * Equal texts nearly always have one code, but not for certain: codes are compared by their texts.
 */

/** A dictionary with more texts is replaced by an empty one at the next batch. */
const TEXTS_MAX = 65_536
/** And one with more bytes. */
const BYTES_MAX = 8 << 20
/** Texts that are probed: further ones of equal hashes get a code of their own each. */
const PROBES_MAX = 24
const SLOTS = 1024
/** Texts of at most so many bytes are remembered by their bytes, the last one of each place. */
const SHORT_MAX = 3
const SHORT_PLACES = 4096
const SHORT_SHIFT = 32 - Math.log2(SHORT_PLACES)
/** An odd number that spreads keys over the upper bits of a product: 2^32 / golden ratio. */
const SPREAD = 0x9e3779b1

// A mark at the beginning of a field is a part of its text.
const DECODER = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The multiplier of the hash of a text's bytes, which starts at 0: h = h * 31 + byte. */
export const HASH_FACTOR = 31

/** The different texts of a column, in the order in which they come; code 0 is the empty text. */
export class Dictionary {
  /** The number of codes. */
  size = 1
  private bytes = new Uint8Array(1024)
  /** Where the bytes of each code end; they begin where those of the code before end. */
  private ends = new Int32Array(256)
  private hashes = new Int32Array(256)
  /** A code for each slot of the hash table, 0 for a free one; a power of two of them. */
  private slots = new Int32Array(SLOTS)
  /** Length and bytes of short texts; 0 for a free place. */
  private readonly shortKeys = new Int32Array(SHORT_PLACES)
  private readonly shortCodes = new Int32Array(SHORT_PLACES)
  private readonly texts: (string | undefined)[] = ['']

  /** Whether a new dictionary should take the place of this one. */
  get isFull(): boolean {
    return this.size > TEXTS_MAX || (this.ends[this.size - 1] ?? 0) > BYTES_MAX
  }

  /**
   * The code of the bytes from `start` to `end`; -1 if they are not UTF-8.
   *
   * @param hash their hash.
   */
  code(source: Uint8Array, start: number, end: number, hash: number): number {
    if (start === end) return 0
    const { slots } = this
    const mask = slots.length - 1
    let slot = firstSlot(hash, mask)
    for (let probe = 0; probe < PROBES_MAX; probe += 1) {
      const found = slots[slot] as number
      if (found === 0) return this.add(source, start, end, hash, slot)
      if (this.hashes[found] === hash && this.equals(found, source, start, end)) return found
      slot = (slot + 1) & mask
    }
    return this.add(source, start, end, hash, -1)
  }

  /** As `code`, for bytes whose hash is not known. */
  codeOf(source: Uint8Array, start: number, end: number): number {
    const size = end - start
    if (size > SHORT_MAX) return this.codeOfHashed(source, start, end)
    if (size === 0) return 0
    // The bytes of a short text are a number, which is found without a hash and a comparison.
    let key = source[start] as number
    if (size > 1) key = (key << 8) | (source[start + 1] as number)
    if (size > 2) key = (key << 8) | (source[start + 2] as number)
    const place = Math.imul(key + (size << 24), SPREAD) >>> SHORT_SHIFT
    if (this.shortKeys[place] === key + (size << 24)) return this.shortCodes[place] as number
    const code = this.codeOfHashed(source, start, end)
    this.shortKeys[place] = key + (size << 24)
    this.shortCodes[place] = code
    return code
  }

  private codeOfHashed(source: Uint8Array, start: number, end: number): number {
    let hash = 0
    for (let at = start; at < end; at += 1)
      hash = (Math.imul(hash, HASH_FACTOR) + (source[at] as number)) | 0
    return this.code(source, start, end, hash)
  }

  /** The text of a code; it is made when it is first asked for. */
  text(code: number): string {
    return this.texts[code] ?? this.decode(code)
  }

  private decode(code: number): string {
    const made = DECODER.decode(this.bytes.subarray(this.ends[code - 1], this.ends[code]))
    this.texts[code] = made
    return made
  }

  private equals(code: number, source: Uint8Array, start: number, end: number): boolean {
    const { bytes } = this
    let at = this.ends[code - 1] as number
    const stop = this.ends[code] as number
    if (stop - at !== end - start) return false
    for (let other = start; at < stop; at += 1, other += 1)
      if (bytes[at] !== source[other]) return false
    return true
  }

  private add(source: Uint8Array, start: number, end: number, hash: number, slot: number): number {
    const code = this.size
    const from = this.ends[code - 1] as number
    const until = from + end - start
    if (until > this.bytes.length) this.bytes = grown(this.bytes, 2 * until)
    let seen = 0
    for (let at = start, to = from; at < end; at += 1, to += 1) {
      const byte = source[at] as number
      this.bytes[to] = byte
      seen |= byte
    }
    // ASCII is UTF-8; other texts are checked here, so that `text` cannot fail.
    if (seen > 127) {
      try {
        this.texts[code] = DECODER.decode(this.bytes.subarray(from, until))
      } catch {
        return -1
      }
    }
    if (code === this.ends.length) {
      this.ends = grown(this.ends, 2 * code)
      this.hashes = grown(this.hashes, 2 * code)
    }
    this.ends[code] = until
    this.hashes[code] = hash
    if (slot >= 0) this.slots[slot] = code
    this.size = code + 1
    if (2 * this.size > this.slots.length) this.rehash()
    return code
  }

  private rehash(): void {
    const slots = new Int32Array(4 * this.slots.length)
    const mask = slots.length - 1
    for (let code = 1; code < this.size; code += 1) {
      let slot = firstSlot(this.hashes[code] as number, mask)
      let probe = 0
      for (; probe < PROBES_MAX && slots[slot] !== 0; probe += 1) slot = (slot + 1) & mask
      if (probe < PROBES_MAX) slots[slot] = code
    }
    this.slots = slots
  }
}

function firstSlot(hash: number, mask: number): number {
  return (hash ^ (hash >>> 15)) & mask
}

function grown<A extends Uint8Array | Int32Array>(array: A, length: number): A {
  const made = new (array.constructor as new (length: number) => A)(length)
  made.set(array)
  return made
}
