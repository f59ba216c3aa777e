/**
 * The float sum that no order of the rows can change: `spec/float-sum.md`.
 *
 * A double is cut into pieces of 40 bits; the sums of the pieces in the three highest bins are
 * exact. Pieces are added as doubles, which hold 2^13 of them, and are then carried to bigints.
 */

const BITS = 40n
const BASE = 2n ** BITS
export const SHIFT = 2 ** 40
/** Additions after which the sums in doubles may be inexact: 2^13 pieces below 2^40 fill 53 bits. */
export const CARRY_EVERY = 4096
/** Below this bin the weights of pieces are no normal doubles. */
const FAST_BIN_MIN = 3

/** The sum of some floats. */
export class FloatSum {
  /** The highest bin in which a value had a bit; -1 for none. */
  private top = -1
  // Sums of the pieces in the bins top, top - 1, top - 2 since the last carry.
  private p0 = 0
  private p1 = 0
  private p2 = 0
  private pending = 0
  private sums: [bigint, bigint, bigint] = [0n, 0n, 0n]
  private posInf = 0
  private negInf = 0
  private nan = 0
  /** 2^(1080 - 40 top), by which a value becomes a number of units of the top bin. */
  private scale = 0

  add(value: number): void {
    const size = Math.abs(value)
    // Units of the top bin: the comparison is false for NaN and the infinities too.
    const units = size * this.scale
    if (!(units < SHIFT) || this.top < FAST_BIN_MIN) return this.addSlowly(value, size)
    const high = Math.trunc(value * this.scale)
    const rest = (value * this.scale - high) * SHIFT
    const middle = Math.trunc(rest)
    this.p0 += high
    this.p1 += middle
    this.p2 += Math.trunc((rest - middle) * SHIFT)
    this.pending += 1
    if (this.pending >= CARRY_EVERY) this.carry()
  }

  /** Add the square of a value as two doubles: the rounded square, and what rounding lost. */
  addSquare(value: number): void {
    const square = value * value
    this.add(square)
    if (!Number.isFinite(square) || square < 2 ** -968) return
    // Dekker's product, with Veltkamp's split of the value.
    const split = value * 134_217_729
    const high = split - (split - value)
    const low = value - high
    this.add(high * high - square + 2 * high * low + low * low)
  }

  /** What `FloatSums` multiplies a value with; NaN while values have to be added one by one. */
  get fastScale(): number {
    return this.top < FAST_BIN_MIN ? NaN : this.scale
  }

  /** Add sums of pieces in the three highest bins, each below 2^53. */
  addUnits(high: number, middle: number, low: number): void {
    this.sums[0] += BigInt(high)
    this.sums[1] += BigInt(middle)
    this.sums[2] += BigInt(low)
  }

  merge(other: FloatSum): void {
    other.carry()
    this.carry()
    this.raise(other.top)
    const shift = this.top - other.top
    other.sums.forEach((sum, at) => {
      const bin = at + shift
      if (bin < 3) this.sums[bin as 0 | 1 | 2] += sum
    })
    this.posInf += other.posInf
    this.negInf += other.negInf
    this.nan += other.nan
  }

  /** The 80 bytes of the state. */
  bytes(): Uint8Array<ArrayBuffer> {
    this.carry()
    const made = new Uint8Array(80)
    const view = new DataView(made.buffer)
    view.setInt32(0, this.top, true)
    this.sums.forEach((sum, at) => {
      view.setBigUint64(8 + 16 * at, BigInt.asUintN(64, sum), true)
      view.setBigInt64(16 + 16 * at, BigInt.asIntN(64, sum >> 64n), true)
    })
    view.setBigUint64(56, BigInt(this.posInf), true)
    view.setBigUint64(64, BigInt(this.negInf), true)
    view.setBigUint64(72, BigInt(this.nan), true)
    return made
  }

  /** The sum, rounded once to the nearest double. */
  value(): number {
    const special = this.special()
    if (special !== null) return special
    const [units, exponent] = this.exact()
    return rounded(units, 1n, exponent)
  }

  /** NaN or an infinity that the values had; null if all were finite. */
  special(): number | null {
    if (this.nan > 0 || (this.posInf > 0 && this.negInf > 0)) return NaN
    if (this.posInf > 0) return Infinity
    return this.negInf > 0 ? -Infinity : null
  }

  /** The exact sum, as an integer times a power of two. */
  exact(): [units: bigint, exponent: number] {
    this.carry()
    const [high, middle, low] = this.sums
    return [(high * BASE + middle) * BASE + low, 40 * (this.top - 2) - 1080]
  }

  private addSlowly(value: number, size: number): void {
    if (Number.isNaN(value)) this.nan += 1
    else if (value === Infinity) this.posInf += 1
    else if (value === -Infinity) this.negInf += 1
    else if (value !== 0) this.addPieces(value < 0, size)
  }

  /** The pieces as the specification defines them, from the bits of the value. */
  private addPieces(isNegative: boolean, size: number): void {
    const [mantissa, exponent] = parts(size)
    const lowest = exponent + 1080
    const bin = Math.floor(lowest / 40)
    let rest = mantissa << BigInt(lowest - bin * 40)
    const pieces: bigint[] = []
    for (; rest > 0n; rest >>= BITS) pieces.push(rest % BASE)
    const highest = bin + pieces.length - 1
    this.carry()
    this.raise(highest)
    pieces.forEach((piece, at) => {
      const place = this.top - (bin + at)
      if (place < 3) this.sums[place as 0 | 1 | 2] += isNegative ? -piece : piece
    })
  }

  /** Make a bin the highest one, if it is higher. */
  private raise(bin: number): void {
    if (bin <= this.top) return
    const shift = bin - this.top
    const [high, middle] = this.sums
    // The bins below the three highest are dropped, in any order of the values.
    this.sums = shift === 1 ? [0n, high, middle] : shift === 2 ? [0n, 0n, high] : [0n, 0n, 0n]
    if (this.top < 0) this.sums = [0n, 0n, 0n]
    this.top = bin
    this.scale = 2 ** (1080 - 40 * bin)
  }

  private carry(): void {
    if (this.pending === 0) return
    this.sums[0] += BigInt(this.p0)
    this.sums[1] += BigInt(this.p1)
    this.sums[2] += BigInt(this.p2)
    this.p0 = this.p1 = this.p2 = this.pending = 0
  }
}

const VIEW = new DataView(new ArrayBuffer(8))

/** The whole mantissa of a positive double, and the exponent of its lowest bit. */
function parts(value: number): [mantissa: bigint, exponent: number] {
  VIEW.setFloat64(0, value)
  const bits = VIEW.getBigUint64(0)
  const field = Number(bits >> 52n)
  const mantissa = (bits & (2n ** 52n - 1n)) | (field === 0 ? 0n : 2n ** 52n)
  return [mantissa, Math.max(field, 1) - 1075]
}

/** `numerator / denominator * 2^exponent`, rounded once to the nearest double, ties to even. */
export function rounded(numerator: bigint, denominator: bigint, exponent: number): number {
  if (numerator === 0n) return 0
  const size = numerator < 0n ? -numerator : numerator
  // A quotient of 55 to 56 bits: enough for the mantissa, the bit behind it, and "more follows".
  const shift = 55 - (bitLength(size) - bitLength(denominator))
  const scaled = shift >= 0 ? size << BigInt(shift) : size
  const divisor = shift >= 0 ? denominator : denominator << BigInt(-shift)
  const quotient = scaled / divisor
  const sticky = scaled % divisor === 0n ? 0n : 1n
  const value = scaleRounded((quotient << 1n) | sticky, exponent - shift - 1)
  return numerator < 0n ? -value : value
}

/** `bits * 2^exponent` to the nearest double, ties to even; the lowest bit is "more follows". */
function scaleRounded(bits: bigint, exponent: number): number {
  const length = bitLength(bits)
  // Doubles below 2^-1022 have fewer bits: their lowest is always 2^-1074.
  const lowest = Math.max(exponent + length - 53, -1074)
  const dropped = BigInt(lowest - exponent)
  if (dropped <= 0n) return Number(bits) * 2 ** exponent
  const half = 1n << (dropped - 1n)
  let kept = bits >> dropped
  const rest = bits & ((1n << dropped) - 1n)
  if (rest > half || (rest === half && (kept & 1n) === 1n)) kept += 1n
  const mantissa = Number(kept)
  // In two steps, so that neither factor is too small or too large for a double.
  const first = Math.trunc(lowest / 2)
  return mantissa * 2 ** first * 2 ** (lowest - first)
}

function bitLength(value: bigint): number {
  return value.toString(2).length
}
