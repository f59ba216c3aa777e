'use client'

import { useState } from 'react'

import { SearchField } from '@/components/ui/SearchField'
import { matches } from '@/lib/network'

const SEARCHED_MIN = 8

/** Chooses some of the nodes, by name. */
export function NodeChoice({
  label,
  nodes,
  chosen,
  onChange,
}: {
  label: string
  nodes: readonly string[]
  chosen: readonly string[]
  onChange: (names: string[]) => void
}) {
  const [search, setSearch] = useState('')
  const shown = nodes.filter((name) => matches([name], search))
  const toggle = (name: string, isOn: boolean) =>
    onChange(isOn ? [...chosen, name] : chosen.filter((each) => each !== name))
  return (
    <fieldset className="flex min-w-0 flex-col gap-1.5">
      <legend className="text-ink-2 mb-1 text-xs">{label}</legend>
      {nodes.length >= SEARCHED_MIN && (
        <SearchField label="Search nodes" value={search} onChange={setSearch} />
      )}
      <div className="border-line max-h-36 overflow-x-hidden overflow-y-auto rounded-md border px-3 py-1.5">
        {shown.map((name) => (
          <label key={name} className="flex items-center gap-2 py-0.5">
            <input
              type="checkbox"
              className="accent-accent"
              checked={chosen.includes(name)}
              onChange={(event) => toggle(name, event.target.checked)}
            />
            <span className="min-w-0">{name}</span>
          </label>
        ))}
        {shown.length === 0 && (
          <p className="text-ink-3">
            {nodes.length === 0 ? 'There is no other node yet.' : 'No node matches the search.'}
          </p>
        )}
      </div>
    </fieldset>
  )
}
