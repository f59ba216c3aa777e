/** Datasets for the pages, from the live tree and the node's list of damage. */

import { api, damageSeen } from './api'
import type { DatasetInfo, Field } from './records'
import { Store } from './store'

/** Every dataset that has been committed, newest first. */
export function datasetsOf(tree: unknown): DatasetInfo[] {
  if (typeof tree !== 'object' || tree === null) return []
  return (Object.values(tree) as (DatasetInfo | null)[])
    .filter(
      (value): value is DatasetInfo =>
        typeof value === 'object' &&
        value !== null &&
        typeof value.id === 'string' &&
        typeof value.name === 'string',
    )
    .sort((a, b) => (b.createdAt ?? 0) - (a.createdAt ?? 0))
}

/** The datasets of the tree with their damage; those whose row in the tree is lost come last. */
export function withDamage(
  datasets: readonly DatasetInfo[],
  damaged: readonly DatasetInfo[],
): DatasetInfo[] {
  const reasons = new Map(damaged.map((each) => [each.id, each]))
  const known = datasets.map((each) => {
    const found = reasons.get(each.id)
    reasons.delete(each.id)
    return found ? { ...each, name: found.name, damaged: found.damaged ?? null } : each
  })
  return [...known, ...reasons.values()]
}

/** The columns of a dataset; the tree may hold a list as an object with numbers for keys. */
export function fieldsOf(dataset: Pick<DatasetInfo, 'schema'>): Field[] {
  const fields: unknown = dataset.schema?.fields
  return typeof fields === 'object' && fields !== null ? (Object.values(fields) as Field[]) : []
}

/** The datasets that the node knows to be damaged; null until it was asked. */
export const damagedDatasets = new Store<DatasetInfo[] | null>(null)

let asking = false
let askAgain = false

/** Reload the damaged datasets, one request at a time; on failure keep the previous list. */
export async function refreshDamaged(): Promise<void> {
  askAgain = asking
  if (asking) return
  asking = true
  try {
    damagedDatasets.set(await api.damaged())
  } catch {
    damagedDatasets.set(damagedDatasets.get() ?? [])
  }
  asking = false
  if (askAgain) await refreshDamaged()
}

damageSeen.subscribe(() => void refreshDamaged())
