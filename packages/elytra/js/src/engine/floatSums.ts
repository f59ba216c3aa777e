/** Sums of floats for many groups: those of `FloatSum`, with the sums of pieces in typed arrays. */

import { CARRY_EVERY, FloatSum, SHIFT } from './floatSum.ts'
import { lengthened } from './slots.ts'

/** One sum for each group. */
export class FloatSums {
  private readonly sums: (FloatSum | undefined)[] = []
  // Of each group: the sums of pieces in its three highest bins since the last carry, how many values
  // they are of, and `fastScale` of its sum, which is NaN for a group that has none.
  private high = new Float64Array(0)
  private middle = new Float64Array(0)
  private low = new Float64Array(0)
  private pending = new Int32Array(0)
  private scales = new Float64Array(0)

  /**
   * Add values of rows to their groups.
   *
   * @param count the number of groups.
   */
  add(groups: Int32Array, values: Float64Array, nulls: Uint8Array | null, count: number): void {
    this.reserve(count)
    const { high, middle, low, pending, scales } = this
    for (let row = 0; row < groups.length; row += 1) {
      if (nulls !== null && nulls[row] === 1) continue
      const group = groups[row] as number
      const value = values[row] as number
      const units = value * (scales[group] as number)
      // False for NaN and the infinities too.
      if (!(units < SHIFT && units > -SHIFT)) {
        this.addSlowly(group, value)
        continue
      }
      const whole = Math.trunc(units)
      const rest = (units - whole) * SHIFT
      const next = Math.trunc(rest)
      high[group] = (high[group] as number) + whole
      middle[group] = (middle[group] as number) + next
      low[group] = (low[group] as number) + Math.trunc((rest - next) * SHIFT)
      const added = (pending[group] as number) + 1
      pending[group] = added
      if (added === CARRY_EVERY) this.carry(group)
    }
  }

  /** The sum of a group, null if it has no value. */
  of(group: number): FloatSum | null {
    const sum = this.sums[group]
    if (!sum) return null
    this.carry(group)
    return sum
  }

  private addSlowly(group: number, value: number): void {
    this.carry(group)
    const sum = (this.sums[group] ??= new FloatSum())
    sum.add(value)
    this.scales[group] = sum.fastScale
  }

  private carry(group: number): void {
    if (!this.pending[group]) return
    this.sums[group]?.addUnits(
      this.high[group] as number,
      this.middle[group] as number,
      this.low[group] as number,
    )
    this.high[group] = this.middle[group] = this.low[group] = this.pending[group] = 0
  }

  private reserve(count: number): void {
    if (count <= this.scales.length) return
    this.high = lengthened(this.high, count)
    this.middle = lengthened(this.middle, count)
    this.low = lengthened(this.low, count)
    this.pending = lengthened(this.pending, count)
    this.scales = lengthened(this.scales, count, NaN)
  }
}
