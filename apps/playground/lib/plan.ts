/** The one pipeline this site composes: rows of a dataset grouped and folded. */

export const MEASURES = ['count', 'sum', 'avg', 'min', 'max'] as const

export type Measure = (typeof MEASURES)[number]

/** What the form asks. */
export interface Grouping {
  dataset: string
  by: string
  measure: Measure
  of: string
}

/** The plan's JSON, version 1. */
export function groupingPlan({ dataset, by, measure, of }: Grouping): object {
  const agg = measure === 'count' ? { agg: 'count' } : { agg: measure, arg: { col: of } }
  const columns = measure === 'count' || by === of ? [by] : [by, of]
  return {
    v: 1,
    op: 'aggregate',
    input: { op: 'scan', source: { dataset }, columns },
    keys: [{ name: by, expr: { col: by } }],
    aggs: [{ name: resultName({ by, measure, of }), agg }],
  }
}

function resultName({ by, measure, of }: Omit<Grouping, 'dataset'>): string {
  const name = measure === 'count' ? 'rows' : `${measure}_${of}`
  return name === by ? `${name}_2` : name
}
