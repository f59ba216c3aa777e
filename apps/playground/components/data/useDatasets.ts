'use client'

import { useEffect, useMemo } from 'react'

import { damagedDatasets, datasetsOf, refreshDamaged, withDamage } from '@/lib/datasets'
import { useLive, useStore } from '@/lib/hooks'

/** Damage is found by queries and by `platform verify`, neither of which writes to the tree. */
const REFRESH_MS = 60_000

/** Every dataset, damaged ones with their reason; `ready` when both are known. */
export function useDatasets() {
  const { value: tree, isKnown, connection } = useLive('/datasets')
  const damaged = useStore(damagedDatasets)
  useEffect(() => {
    void refreshDamaged()
    const timer = setInterval(() => !document.hidden && void refreshDamaged(), REFRESH_MS)
    return () => clearInterval(timer)
  }, [tree])
  const datasets = useMemo(() => withDamage(datasetsOf(tree), damaged ?? []), [tree, damaged])
  return { datasets, ready: isKnown && damaged !== null, connection }
}
