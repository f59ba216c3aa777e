/** Sums of floats for many groups: those of `FloatSum`, with the sums of pieces in a typed array. */

import { CARRY_EVERY, FloatSum, SHIFT } from './floatSum.ts'
import { lengthened } from './slots.ts'

/** A power of two, so that the numbers of a group are in one line of the cache. */
const STRIDE = 8

/** One sum for each group. */
export class FloatSums {
  private readonly sums: (FloatSum | undefined)[] = []
  /**
   * STRIDE numbers of each group: `fastScale` of its sum (NaN for a group without one), the sums of
   * pieces in its three highest bins since the last carry, and how many values they are of.
   */
  private slots = new Float64Array(0)

  /**
   * Add values of rows to their groups.
   *
   * @param count the number of groups.
   */
  add(groups: Int32Array, values: Float64Array, nulls: Uint8Array | null, count: number): void {
    this.slots = lengthened(this.slots, STRIDE * count, NaN)
    const { slots } = this
    for (let row = 0; row < groups.length; row += 1) {
      if (nulls !== null && nulls[row] === 1) continue
      const at = STRIDE * (groups[row] as number)
      const value = values[row] as number
      const units = value * (slots[at] as number)
      // False for NaN and the infinities too.
      if (!(units < SHIFT && units > -SHIFT)) {
        this.addSlowly(groups[row] as number, value)
        continue
      }
      const whole = Math.trunc(units)
      const rest = (units - whole) * SHIFT
      const next = Math.trunc(rest)
      slots[at + 1] = (slots[at + 1] as number) + whole
      slots[at + 2] = (slots[at + 2] as number) + next
      slots[at + 3] = (slots[at + 3] as number) + Math.trunc((rest - next) * SHIFT)
      const added = (slots[at + 4] as number) + 1
      slots[at + 4] = added
      if (added === CARRY_EVERY) this.carry(groups[row] as number)
    }
  }

  /** The sum of a group, null if it has no value. */
  of(group: number): FloatSum | null {
    const sum = this.sums[group]
    if (sum) this.carry(group)
    return sum ?? null
  }

  private addSlowly(group: number, value: number): void {
    this.carry(group)
    const sum = (this.sums[group] ??= new FloatSum())
    sum.add(value)
    this.slots[STRIDE * group] = sum.fastScale
  }

  private carry(group: number): void {
    const { slots } = this
    const at = STRIDE * group
    this.sums[group]?.addUnits(
      slots[at + 1] as number,
      slots[at + 2] as number,
      slots[at + 3] as number,
    )
    slots.fill(0, at + 1, at + STRIDE)
  }
}
