'use client'

import { Workflow } from 'lucide-react'
import { useRouter } from 'next/navigation'
import { useId, useState, type FormEvent } from 'react'

import { isNumeric } from '@/components/sql/ResultGrid'
import { Failed } from '@/components/ui/States'
import { api, asApiError, type ApiError } from '@/lib/api'
import { fieldsOf } from '@/lib/datasets'
import { groupingPlan, MEASURES, type Measure } from '@/lib/plan'
import type { DatasetInfo } from '@/lib/records'

const WORDS: Record<Measure, string> = {
  count: 'Number of rows',
  sum: 'Sum of',
  avg: 'Mean of',
  min: 'Least',
  max: 'Greatest',
}

/** The smallest pipeline: group by one column, fold another, as a job under the memory cap. */
export function GroupForm({ dataset }: { dataset: DatasetInfo }) {
  const router = useRouter()
  const fields = fieldsOf(dataset)
  const numeric = fields.filter(({ type }) => isNumeric(type))
  const [by, setBy] = useState(
    (fields.find(({ type }) => type === 'Utf8') ?? fields[0])?.name ?? '',
  )
  const [measure, setMeasure] = useState<Measure>('count')
  const [of, setOf] = useState(numeric[0]?.name ?? '')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<ApiError | null>(null)
  const id = useId()

  const submit = async (event: FormEvent) => {
    event.preventDefault()
    setBusy(true)
    setError(null)
    try {
      const { jobId } = await api.submit(groupingPlan({ dataset: dataset.id, by, measure, of }))
      router.push(`/jobs/?id=${jobId}`)
    } catch (reason) {
      setError(asApiError(reason))
      setBusy(false)
    }
  }

  if (fields.length === 0) return null
  return (
    <section aria-labelledby={`${id}-title`} className="panel p-5">
      <h2 id={`${id}-title`} className="flex items-center gap-2 font-semibold">
        <Workflow size={15} aria-hidden className="text-ink-3" /> Run a pipeline
      </h2>
      <p className="text-ink-2 mt-0.5">
        Shard by shard under the memory cap, as a job you can watch.
      </p>
      <form
        onSubmit={(event) => void submit(event)}
        className="mt-3 flex flex-wrap items-end gap-3"
      >
        <label className="flex flex-col gap-1">
          <span className="text-ink-3 text-xs">For each</span>
          <select className="field" value={by} onChange={(event) => setBy(event.target.value)}>
            {fields.map(({ name }) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        <label className="flex flex-col gap-1">
          <span className="text-ink-3 text-xs">Compute</span>
          <select
            className="field"
            value={measure}
            onChange={(event) => setMeasure(event.target.value as Measure)}
          >
            {MEASURES.filter((each) => each === 'count' || numeric.length > 0).map((each) => (
              <option key={each} value={each}>
                {WORDS[each]}
              </option>
            ))}
          </select>
        </label>
        {measure !== 'count' && (
          <label className="flex flex-col gap-1">
            <span className="text-ink-3 text-xs">Column</span>
            <select className="field" value={of} onChange={(event) => setOf(event.target.value)}>
              {numeric.map(({ name }) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
        )}
        <button type="submit" className="button" disabled={busy}>
          {busy ? 'Starting…' : 'Run as a job'}
        </button>
      </form>
      {error && (
        <div className="mt-3">
          <Failed title="The job was not accepted" message={error.message} hint={error.hint} />
        </div>
      )}
    </section>
  )
}
