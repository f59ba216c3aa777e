import type { Metadata } from 'next'
import { Suspense } from 'react'

import { JobsPage } from '@/components/jobs/JobsPage'
import { Loading } from '@/components/ui/States'

export const metadata: Metadata = { title: 'Jobs' }

export default function Page() {
  return (
    <Suspense fallback={<Loading />}>
      <JobsPage />
    </Suspense>
  )
}
