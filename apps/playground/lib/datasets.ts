/** What the pages need to know about datasets, read from the live tree. */

import type { Tree } from './live/tree'
import type { DatasetInfo, Field } from './records'

/** Every dataset that has been committed, newest first. */
export function datasetsOf(tree: Tree): DatasetInfo[] {
  if (typeof tree !== 'object' || tree === null) return []
  return (Object.values(tree) as (DatasetInfo | null)[])
    .filter(
      (value): value is DatasetInfo =>
        typeof value === 'object' && value !== null && typeof value.name === 'string',
    )
    .sort((a, b) => (b.createdAt ?? 0) - (a.createdAt ?? 0))
}

/** The columns of a dataset; the tree may hold a list as an object with numbers for keys. */
export function fieldsOf(dataset: Pick<DatasetInfo, 'schema'>): Field[] {
  const fields: unknown = dataset.schema?.fields
  return typeof fields === 'object' && fields !== null ? (Object.values(fields) as Field[]) : []
}
