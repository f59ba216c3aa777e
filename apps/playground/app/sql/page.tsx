import type { Metadata } from 'next'
import { Suspense } from 'react'

import { Workbench } from '@/components/sql/Workbench'
import { Loading } from '@/components/ui/States'

export const metadata: Metadata = { title: 'SQL' }

export default function SqlPage() {
  return (
    <Suspense fallback={<Loading />}>
      <Workbench />
    </Suspense>
  )
}
