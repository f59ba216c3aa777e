'use client'

import { useId, type ReactNode } from 'react'

import type { IngestOptions } from '@/lib/uploads'

type Choice = [value: string, label: string]

const DELIMITERS: Choice[] = [
  [',', 'Comma'],
  [';', 'Semicolon'],
  ['\t', 'Tab'],
  ['|', 'Bar'],
]
const ENCODINGS: Choice[] = [
  ['utf-8', 'UTF-8'],
  ['utf-16-le', 'UTF-16 (LE)'],
  ['utf-16-be', 'UTF-16 (BE)'],
  ['cp1252', 'Windows-1252'],
]
const HEADERS: Choice[] = [
  ['true', 'The first line has the names'],
  ['false', 'There is none'],
]
const DATES: Choice[] = [
  ['dmy', 'Day first: 31/12/2026'],
  ['mdy', 'Month first: 12/31/2026'],
]

/** What a person may fix instead of having it detected. */
export function ReadingOptions({
  options,
  onChange,
}: {
  options: IngestOptions
  onChange: (options: IngestOptions) => void
}) {
  const set = (change: Partial<IngestOptions>) => {
    const next: Record<string, unknown> = { ...options, ...change }
    for (const key of Object.keys(next)) if (next[key] === undefined) delete next[key]
    onChange(next)
  }
  return (
    <div className="flex flex-col gap-3">
      <div className="grid gap-3 sm:grid-cols-2 lg:grid-cols-4">
        <Choose
          label="Delimiter"
          value={options.delimiter}
          choices={DELIMITERS}
          onChange={(delimiter) => set({ delimiter })}
        />
        <Choose
          label="Encoding"
          value={options.encoding}
          choices={ENCODINGS}
          onChange={(encoding) => set({ encoding })}
        />
        <Choose
          label="Header"
          value={options.header === undefined ? undefined : String(options.header)}
          choices={HEADERS}
          onChange={(header) =>
            set({ header: header === undefined ? undefined : header === 'true' })
          }
        />
        <Choose
          label="Dates"
          value={options.dateOrder}
          choices={DATES}
          onChange={(dateOrder) => set({ dateOrder: dateOrder as IngestOptions['dateOrder'] })}
        />
      </div>
      <label className="flex items-start gap-2">
        <input
          type="checkbox"
          checked={options.strict ?? false}
          onChange={(event) => set({ strict: event.target.checked || undefined })}
          className="accent-accent mt-0.5 size-4"
        />
        <span>
          <span className="font-medium">Strict</span>
          <span className="text-ink-2">
            : fail on a value that does not fit its column, instead of widening and reporting the
            column
          </span>
        </span>
      </label>
    </div>
  )
}

function Choose({
  label,
  value,
  choices,
  onChange,
}: {
  label: ReactNode
  value: string | undefined
  choices: Choice[]
  onChange: (value: string | undefined) => void
}) {
  const id = useId()
  return (
    <div>
      <label htmlFor={id} className="text-ink-3 mb-1 block text-xs">
        {label}
      </label>
      <select
        id={id}
        className="field w-full"
        value={value ?? ''}
        onChange={(event) => onChange(event.target.value || undefined)}
      >
        <option value="">Detect</option>
        {choices.map(([choice, name]) => (
          <option key={choice} value={choice}>
            {name}
          </option>
        ))}
      </select>
    </div>
  )
}
