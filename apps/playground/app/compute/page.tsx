import type { Metadata } from 'next'

import { ComputePage } from '@/components/compute/ComputePage'

export const metadata: Metadata = { title: 'Compute' }

export default function Page() {
  return <ComputePage />
}
