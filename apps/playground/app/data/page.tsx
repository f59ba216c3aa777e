import type { Metadata } from 'next'
import { Suspense } from 'react'

import { DataPage } from '@/components/data/DataPage'
import { Loading } from '@/components/ui/States'

export const metadata: Metadata = { title: 'Data' }

export default function Page() {
  return (
    <Suspense fallback={<Loading />}>
      <DataPage />
    </Suspense>
  )
}
