'use client'

import { Download } from 'lucide-react'
import { useState } from 'react'

import { asApiError, EXPORT_TYPES, type ApiError, type ExportFormat } from '@/lib/api'
import { saveBlob } from '@/lib/files'

const LABELS: Record<ExportFormat, string> = { csv: 'CSV', json: 'JSON', arrow: 'Arrow' }

/** Saves a whole answer as a file; `ask` fetches it anew, so nothing is cut off. */
export function ExportButtons({
  name,
  ask,
  onFailed,
}: {
  name: string
  ask: (format: ExportFormat) => Promise<Blob>
  onFailed: (error: ApiError | null) => void
}) {
  const [busy, setBusy] = useState<ExportFormat | null>(null)

  const save = async (format: ExportFormat) => {
    setBusy(format)
    onFailed(null)
    try {
      saveBlob(await ask(format), `${name}.${format}`)
    } catch (reason) {
      onFailed(asApiError(reason))
    }
    setBusy(null)
  }

  return (
    <div role="group" aria-label="Export" className="ml-auto flex items-center gap-0.5">
      <Download size={14} aria-hidden className="text-ink-3 mr-1" />
      {(Object.keys(EXPORT_TYPES) as ExportFormat[]).map((format) => (
        <button
          key={format}
          type="button"
          disabled={busy !== null}
          className="button button-quiet button-small"
          onClick={() => void save(format)}
        >
          {busy === format ? 'Saving…' : LABELS[format]}
        </button>
      ))}
    </div>
  )
}
