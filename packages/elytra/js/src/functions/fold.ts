/** Folds of `reduce(f, initial)` as aggregates: the function runs on placeholders, not on data. */

import { Unsupported } from '../errors.ts'
import { Expr, exprOf, type Operand } from '../plan/expr.ts'

const HINT =
  'reduce supports sums (total + r.price * r.qty), counts (n + 1), Math.min and Math.max; ' +
  'use agg(…) for other aggregates'

/** The aggregate that a fold computes. */
export interface Fold {
  name: 'sum' | 'min' | 'max'
  /** What is summed or compared; null when only a constant is added. */
  term: Expr | null
  /** Added for each row, besides the term. */
  constant: number | bigint
}

/** The accumulator: it records what is added to it. */
export class Accumulator {
  private constructor(
    readonly terms: readonly Operand[],
    readonly extremeOf: 'min' | 'max' | null,
  ) {}

  static start(): Accumulator {
    return new Accumulator([], null)
  }

  /** `Math.max(total, r.price)`, in either order. */
  static extreme(name: 'min' | 'max', values: readonly unknown[]): Accumulator {
    const [total, ...more] = values.filter((value) => value instanceof Accumulator)
    const others = values.filter((value) => !(value instanceof Accumulator))
    if (!total || more.length > 0 || others.length !== 1) return refuseFold(`Math.${name}`)
    if (total.terms.length > 0) return refuseFold(`Math.${name} after another operation`)
    return new Accumulator([termOf(others[0])], name)
  }

  /** An operator with the accumulator as one operand. */
  static binary(mark: string, left: unknown, right: unknown): Accumulator | Comparison {
    if (left instanceof Accumulator && right instanceof Accumulator) return refuseFold(mark)
    const [total, other] =
      left instanceof Accumulator ? [left, right] : [right as Accumulator, left]
    if (total.extremeOf) return refuseFold(`${mark} after Math.${total.extremeOf}`)
    const isLeft = left instanceof Accumulator
    if (mark === '+') return new Accumulator([...total.terms, termOf(other)], null)
    if (mark === '-' && isLeft) return new Accumulator([...total.terms, negative(other)], null)
    const comparison = COMPARISONS[mark]
    if (comparison === undefined || total.terms.length > 0) return refuseFold(mark)
    return new Comparison(isLeft ? comparison : OPPOSITE[comparison], total, termOf(other))
  }

  /** The aggregate, once the function has returned this. */
  fold(): Fold {
    if (this.extremeOf)
      return { name: this.extremeOf, term: exprOf(this.terms[0] ?? null), constant: 0 }
    if (this.terms.length === 0) return refuseFold('a result without the row')
    const rows = this.terms.filter((term) => term instanceof Expr)
    const numbers = this.terms.filter((term) => !(term instanceof Expr))
    return { name: 'sum', term: sumOf(rows), constant: added(numbers) }
  }

  /** Raise the error of an operation that no aggregate computes. */
  refuse(): never {
    return refuseFold('another operation')
  }
}

const COMPARISONS: Record<string, 'min' | 'max'> = {
  '<': 'min',
  '<=': 'min',
  '>': 'max',
  '>=': 'max',
}
const OPPOSITE = { min: 'max', max: 'min' } as const

/** `total > r.price`: the test of a choice between both. */
export class Comparison {
  constructor(
    /** What the fold computes if it chooses the accumulator where the comparison is true. */
    private readonly name: 'min' | 'max',
    private readonly total: Accumulator,
    private readonly term: Operand,
  ) {}

  /** The accumulator of `total > r.price ? total : r.price`. */
  choose(yes: unknown, no: unknown): Accumulator {
    if (yes === this.total && this.isTerm(no)) return Accumulator.extreme(this.name, [yes, no])
    if (no === this.total && this.isTerm(yes))
      return Accumulator.extreme(OPPOSITE[this.name], [no, yes])
    return refuseFold('a choice that is not one of both sides of its comparison')
  }

  refuse(): never {
    return refuseFold('a comparison')
  }

  private isTerm(value: unknown): boolean {
    return JSON.stringify(exprOf(this.term).json) === JSON.stringify(exprOf(termOf(value)).json)
  }
}

function termOf(value: unknown): Operand {
  if (value instanceof Expr || typeof value === 'number' || typeof value === 'bigint')
    return value as Operand
  return refuseFold('an operand that is not a number or an expression')
}

function negative(value: unknown): Operand {
  const term = termOf(value)
  return term instanceof Expr ? term.neg() : -(term as number)
}

function sumOf(terms: readonly Operand[]): Expr | null {
  const [first, ...rest] = terms as readonly Expr[]
  return first ? rest.reduce<Expr>((total, term) => total.add(term), first) : null
}

function added(numbers: readonly Operand[]): number | bigint {
  return numbers.reduce<number>((total, number) => total + Number(number), 0)
}

function refuseFold(what: string): never {
  throw new Unsupported(`reduce cannot run ${what} as an aggregate`, HINT)
}
