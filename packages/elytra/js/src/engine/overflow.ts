/** Whole numbers that do not fit. */

import { ValueOutOfRange } from './types.ts'

/**
 * A whole number of the batch exceeds 2^53: the batch is computed again with bigints. Thrown for
 * control flow alone, so it has no stack.
 */
export const WIDEN: unique symbol = Symbol('whole numbers beyond 2^53')

export const INT64_MIN = -(2n ** 63n)
export const INT64_MAX = 2n ** 63n - 1n
const UINT64_MAX = 2n ** 64n - 1n

export function overflow(): never {
  throw new ValueOutOfRange('a whole number overflows its type', 'cast to Float64')
}

export function int64(value: bigint): bigint {
  return value < INT64_MIN || value > INT64_MAX ? overflow() : value
}

export function uint64(value: bigint): bigint {
  return value < 0n || value > UINT64_MAX ? overflow() : value
}
