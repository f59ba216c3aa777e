'use client'

import { useMemo } from 'react'

import { datasetsOf } from '@/lib/datasets'
import { useLive, useStore } from '@/lib/hooks'
import { titleOf, type LiveJob } from '@/lib/jobs'
import { uploads } from '@/lib/uploads'

/** A function that knows what jobs are called. */
export function useTitles(): (job: LiveJob) => string {
  const { value: tree } = useLive('/datasets')
  const items = useStore(uploads)
  return useMemo(() => {
    const names = new Map(datasetsOf(tree).map(({ id, name }) => [id, name]))
    const files = new Map(
      items.flatMap(({ snapshot }) =>
        snapshot.result ? [[snapshot.result.jobId, snapshot.name] as const] : [],
      ),
    )
    return (job) => titleOf(job, names, files)
  }, [tree, items])
}
