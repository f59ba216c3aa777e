/** Window functions of `Pipeline.window`; aggregates become ones by `.over()`. */

import { UsageError } from '../errors.ts'
import { exprOf, WindowCall, type Operand } from '../plan/expr.ts'
import type { ExprJson } from '../plan/json.ts'

export function rowNumber(): WindowCall {
  return new WindowCall({ window: 'row_number' })
}

export function rank(): WindowCall {
  return new WindowCall({ window: 'rank' })
}

export function denseRank(): WindowCall {
  return new WindowCall({ window: 'dense_rank' })
}

export function ntile(tiles: number): WindowCall {
  if (!Number.isSafeInteger(tiles) || tiles < 1)
    throw new UsageError(`ntile(${tiles}): the number of tiles is a whole number from 1`)
  return new WindowCall({ window: 'ntile', params: [exprOf(tiles).json] })
}

/** The value `offset` rows before; `otherwise` where there is none. */
export function lag(value: Operand, offset = 1, otherwise: Operand = null): WindowCall {
  return shifted('lag', value, offset, otherwise)
}

/** The value `offset` rows after; `otherwise` where there is none. */
export function lead(value: Operand, offset = 1, otherwise: Operand = null): WindowCall {
  return shifted('lead', value, offset, otherwise)
}

export function firstValue(value: Operand): WindowCall {
  return new WindowCall({ window: 'first_value', arg: exprOf(value).json })
}

export function lastValue(value: Operand): WindowCall {
  return new WindowCall({ window: 'last_value', arg: exprOf(value).json })
}

function shifted(window: string, value: Operand, offset: number, otherwise: Operand): WindowCall {
  const params: ExprJson[] = [exprOf(offset).json]
  if (otherwise !== null) params.push(exprOf(otherwise).json)
  // The default offset is left out, as a member with its default value always is.
  const isDefault = offset === 1 && otherwise === null
  return new WindowCall({ window, arg: exprOf(value).json, ...(!isDefault && { params }) })
}
