/** Functions that are called with rows, in a sandbox, and not translated to expressions. */

import { Unsupported, UsageError } from '../errors.ts'
import type { Constant } from '../plan/values.ts'
import { LIMITS, type Limits } from './messages.ts'

/** Types of columns, such as `{ total: 'Float64' }`, or the type of a single value. */
export type Returns = string | Readonly<Record<string, string>>

export interface OpaqueOptions extends Partial<Limits> {
  /** Values of variables that the function names: its text is all that a sandbox receives. */
  scope?: Readonly<Record<string, Constant | readonly Constant[]>>
}

/** A function for `map`, `filter` and `reduce` of `Elytra.file`. */
export class Opaque<Args extends readonly unknown[], Out> {
  /** Only for inference: no such member exists at run time. */
  declare protected readonly types: (...values: Args) => Out

  constructor(
    /** The source text, and values of the variables that it names. */
    readonly text: string,
    readonly scope: object,
    readonly returns: Returns | null,
    readonly limits: Limits,
  ) {}
}

const NAME = /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u

/**
 * Let a function be called with each row, by a thread that reaches nothing else.
 *
 * A batch that runs longer than `secondsMax` (30), or returns more than `outputBytesMax` (64 MiB),
 * fails the job.
 *
 * @param options `returns` has the type of what it returns, or of each column of the object that it
 *   returns; none for `filter`, whose function returns whether the row is kept.
 */
export function opaque<Row, Out extends object>(
  fn: (row: Row) => Out,
  options: OpaqueOptions & { returns: { readonly [Name in keyof Out]: string } },
): Opaque<[Row], Out>
export function opaque<Row, Out>(
  fn: (row: Row) => Out,
  options: OpaqueOptions & { returns: string },
): Opaque<[Row], Out>
export function opaque<Out, Row>(
  fn: (total: Out, row: Row) => Out,
  options: OpaqueOptions & { returns: string },
): Opaque<[Out, Row], Out>
export function opaque<Row>(
  fn: (row: Row) => boolean | null | undefined,
  options?: OpaqueOptions,
): Opaque<[Row], boolean>
export function opaque(
  fn: (...values: never[]) => unknown,
  options: OpaqueOptions & { returns?: Returns } = {},
): Opaque<never[], unknown> {
  if (typeof fn !== 'function') throw new UsageError('opaque() needs a function')
  const text = Function.prototype.toString.call(fn)
  if (text.includes('[native code]'))
    throw new Unsupported('the text of a built-in or bound function is not known', 'write (r) => …')
  const { scope = {}, returns = null, ...limits } = options
  for (const name of Object.keys(scope))
    if (!NAME.test(name)) throw new UsageError(`${JSON.stringify(name)} is not a variable's name`)
  return new Opaque(text, scope, returns, checked({ ...LIMITS, ...limits }))
}

function checked(limits: Limits): Limits {
  for (const [name, value] of Object.entries(limits))
    if (!(name in LIMITS) || !(Number.isFinite(value) && value > 0))
      throw new UsageError(`${name}: ${String(value)} is no limit of a function`)
  return limits
}
