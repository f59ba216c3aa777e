'use client'

import { Ship } from 'lucide-react'

import { useStore } from '@/lib/hooks'
import { SAMPLE_NAME, sampleCsv } from '@/lib/sample'
import { anyUnderWay, startUpload, uploads } from '@/lib/uploads'

/** Make the sample and send it, like any other file. */
export function SampleButton({ primary = false }: { primary?: boolean }) {
  const busy = anyUnderWay(useStore(uploads))
  const send = () => {
    // A fixed time makes it the same file on every click, so a broken upload goes on.
    startUpload(
      new File([sampleCsv()], SAMPLE_NAME, { type: 'text/csv', lastModified: 0 }),
      {},
      'replace',
    )
  }
  return (
    <button
      type="button"
      className={`button ${primary ? 'button-primary' : ''}`}
      disabled={busy}
      onClick={send}
    >
      <Ship size={14} aria-hidden /> Load the sample
    </button>
  )
}
