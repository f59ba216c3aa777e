/** The types that a pipeline infers: its rows, what functions receive, what formulas give. */

import type { Agg, Expr, SortKey } from '../plan/expr.ts'
import type { Constant } from '../plan/values.ts'

/** A row of a pipeline whose columns are not declared. */
export type AnyRow = Record<string, unknown>

/**
 * What a function receives for a value of type `V`. It is a `V`, so that JavaScript's operators can
 * be written, and an expression, so that its methods can.
 */
export type Cell<V> = unknown extends V ? UntypedCell : V & Expr<V>

/** A cell of a column whose type is not declared. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- operators need some operand type
type UntypedCell = any

/** What a function receives for a row. */
export type Cells<Row> = { readonly [Name in keyof Row]: Cell<Row[Name]> }

/** The JavaScript type of what a formula computes. */
export type ValueOf<F> =
  F extends Expr<infer V>
    ? V
    : F extends Constant
      ? F
      : F extends (...row: never[]) => infer Made
        ? MadeValue<Made>
        : unknown

/** The same of what a function returns, which is translated and has no fixed value. */
type MadeValue<Made> =
  Made extends Expr<infer V> ? V : Made extends Constant ? Widened<Made> : unknown

type Widened<V> = V extends number
  ? number
  : V extends string
    ? string
    : V extends boolean
      ? boolean
      : V extends bigint
        ? bigint
        : V

/** The row that a formula returns: `value` for one value, `_0 _1 …` for several. */
export type RowOf<F> =
  F extends Expr<infer V>
    ? { value: V }
    : F extends Constant
      ? { value: F }
      : F extends readonly unknown[]
        ? AnyRow
        : { [Name in keyof F]: ValueOf<F[Name]> }

/** What a function of a later step receives for what this one returned. */
export type InputOf<F> =
  F extends Expr<infer V>
    ? Cell<V>
    : F extends Constant
      ? Cell<F>
      : F extends readonly unknown[]
        ? { readonly [At in keyof F]: Cell<ValueOf<F[At]>> }
        : Cells<RowOf<F>>

/** A formula of one row: an expression, or a function that is translated to one. */
export type Formula<In> = Expr<unknown> | ((row: In) => unknown)

/** A key to sort by: a column, `"name:desc"`, `"name:desc:nulls_first"`, or an expression. */
export type Key<Row> = (keyof Row & string) | `${keyof Row & string}:${string}` | SortKey | Expr

export type Aggregates = Record<string, Agg<unknown>>

export type AggregateRow<A extends Aggregates> = { [Name in keyof A]: ValueOf<A[Name]> }

/** What a function that is called with rows receives, where one that is translated receives `In`. */
export type PlainOf<In> = 0 extends 1 & In
  ? UntypedCell
  : In extends Expr<infer V>
    ? V
    : { [Name in keyof In]: PlainOf<In[Name]> }

/** The rows of a function that is called: columns of its object, or one of its values. */
export type MadeBy<Out> = Out extends Date | Uint8Array
  ? { value: Out }
  : Out extends object
    ? Out
    : { value: Out }

/** What later functions receive for them. */
export type InputBy<Out> = Out extends object ? Cells<Out> : Cell<Out>
