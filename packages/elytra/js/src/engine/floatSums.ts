/** Sums of floats for many groups: those of `FloatSum`, with the sums of pieces in a typed array. */

import type { FusedSum } from './aggregates.ts'
import { CARRY_EVERY, FloatSum, SHIFT } from './floatSum.ts'
import { lengthened } from './slots.ts'

/** A power of two, so that the numbers of a group are in one line of the cache. */
const STRIDE = 8

/** One sum for each group. */
export class FloatSums implements FusedSum {
  private readonly sums: (FloatSum | undefined)[] = []
  /**
   * STRIDE numbers of each group: `fastScale` of its sum (NaN for a group without one), the sums of
   * pieces in its three highest bins since the last carry, and how many values they are of.
   */
  private numbers = new Float64Array(0)

  /**
   * Add values of rows to their groups.
   *
   * @param count the number of groups.
   */
  add(groups: Int32Array, values: Float64Array, nulls: Uint8Array | null, count: number): void {
    const slots = this.slots(count)
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

  slots(groups: number): Float64Array {
    return (this.numbers = lengthened(this.numbers, STRIDE * groups, NaN))
  }

  /** As `add` does it. */
  code(value: string, slots: string, self: string): string {
    return `
      const at = ${STRIDE} * g, units = ${value} * ${slots}[at]
      if (units < ${SHIFT} && units > -${SHIFT}) {
        const whole = Math.trunc(units), rest = (units - whole) * ${SHIFT}, next = Math.trunc(rest)
        ${slots}[at + 1] += whole
        ${slots}[at + 2] += next
        ${slots}[at + 3] += Math.trunc((rest - next) * ${SHIFT})
        if ((${slots}[at + 4] += 1) === ${CARRY_EVERY}) ${self}.carry(g)
      } else ${self}.addSlowly(g, ${value})`
  }

  /** The sum of a group, null if it has no value. */
  of(group: number): FloatSum | null {
    const sum = this.sums[group]
    if (sum) this.carry(group)
    return sum ?? null
  }

  addSlowly(group: number, value: number): void {
    this.carry(group)
    const sum = (this.sums[group] ??= new FloatSum())
    sum.add(value)
    this.numbers[STRIDE * group] = sum.fastScale
  }

  carry(group: number): void {
    const { numbers: slots } = this
    const at = STRIDE * group
    this.sums[group]?.addUnits(
      slots[at + 1] as number,
      slots[at + 2] as number,
      slots[at + 3] as number,
    )
    slots.fill(0, at + 1, at + STRIDE)
  }
}
