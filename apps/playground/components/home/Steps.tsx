'use client'

import { Check } from 'lucide-react'
import Link from 'next/link'
import { useMemo, type ReactNode } from 'react'

import { SampleButton } from '@/components/data/SampleButton'
import { useDatasets } from '@/components/data/useDatasets'
import { plural } from '@/lib/format'
import { useLive, useStore } from '@/lib/hooks'
import { jobsOf } from '@/lib/jobs'
import type { DatasetInfo } from '@/lib/records'
import { SAMPLE_QUERY } from '@/lib/sample'
import { history } from '@/lib/sql/history'
import { queryHref, quoteName } from '@/lib/sql/names'

/** The first three things to do with a node; each one shows when it is done. */
export function Steps() {
  const { datasets, ready } = useDatasets()
  const { value: work } = useLive('/jobs')
  const entries = useStore(history)
  const pipelines = useMemo(() => jobsOf(work).filter(({ kind }) => kind !== 'ingest'), [work])
  const asked = (entries ?? []).filter(({ outcome }) => outcome === 'done').length
  const readable = datasets.filter(({ damaged }) => !damaged)
  const sample = readable.find(({ name }) => name === 'voyages')
  const first = sample ?? largest(readable)
  const query = sample
    ? SAMPLE_QUERY
    : first
      ? `select *\nfrom ${quoteName(first.name)}\nlimit 100`
      : null
  const next = datasets.length === 0 ? 1 : asked === 0 ? 2 : pipelines.length === 0 ? 3 : 0

  return (
    <section aria-label="First steps" className="panel overflow-hidden">
      <ol className="divide-line grid max-md:divide-y md:grid-cols-3 md:divide-x">
        <Step
          number={1}
          title="Bring data"
          done={datasets.length > 0}
          fact={plural(datasets.length, 'table')}
          next={next === 1}
          text="Upload a file of any size. It is checksummed in parts, its columns are typed, and it is stored as Parquet."
        >
          <Link href="/data/" className={`button ${next === 1 ? 'button-primary' : ''}`}>
            Upload a file
          </Link>
          {datasets.length === 0 && ready && <SampleButton />}
        </Step>
        <Step
          number={2}
          title="Ask it in SQL"
          done={asked > 0}
          fact={plural(asked, 'query', 'queries')}
          next={next === 2}
          text="Joins, windows, aggregates; names complete as you type, and answers leave as CSV, JSON or Arrow."
        >
          {query ? (
            <Link
              href={queryHref(query)}
              className={`button ${next === 2 ? 'button-primary' : ''}`}
            >
              Ask {first?.name}
            </Link>
          ) : (
            <Link href="/sql/" className="button">
              Open the editor
            </Link>
          )}
        </Step>
        <Step
          number={3}
          title="Run a pipeline"
          done={pipelines.length > 0}
          fact={plural(pipelines.length, 'pipeline')}
          next={next === 3}
          text="Work on every shard under a hard memory cap, as a job whose tasks you watch live and can cancel."
        >
          <Link
            href={first ? `/data/?id=${first.id}` : '/jobs/'}
            className={`button ${next === 3 ? 'button-primary' : ''}`}
          >
            {first ? `Group ${first.name}` : 'See the jobs'}
          </Link>
        </Step>
      </ol>
    </section>
  )
}

/** The table that is worth asking first. */
function largest(datasets: DatasetInfo[]): DatasetInfo | undefined {
  return datasets.toSorted((a, b) => b.rows - a.rows)[0]
}

interface StepProps {
  number: number
  title: string
  text: string
  done: boolean
  fact: string
  next: boolean
  children: ReactNode
}

function Step({ number, title, text, done, fact, next, children }: StepProps) {
  return (
    <li className="flex flex-col p-5">
      <div className="flex items-center gap-2.5">
        <span
          aria-hidden
          className={`grid size-6 shrink-0 place-items-center rounded-full text-xs font-semibold ${
            done
              ? 'bg-good-soft text-good'
              : next
                ? 'bg-accent text-accent-ink'
                : 'bg-sunken text-ink-2'
          }`}
        >
          {done ? <Check size={14} strokeWidth={2.5} /> : number}
        </span>
        <h2 className="text-base font-semibold">{title}</h2>
        {done && <span className="text-ink-3 ml-auto text-xs">{fact}</span>}
      </div>
      <p className="text-ink-2 mt-2 flex-1 text-pretty">{text}</p>
      <div className="mt-4 flex flex-wrap gap-2">{children}</div>
    </li>
  )
}
