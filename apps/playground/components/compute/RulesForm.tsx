'use client'

import { useState } from 'react'

import { defaultThreads } from '@sennit/elytra'

import { allowFunctions, computing, setRules } from '@/lib/compute'
import type { ComputeRules } from '@/lib/computeRules'
import { useInBrowser, useStore } from '@/lib/hooks'

import { FunctionsDialog } from './FunctionsDialog'

const CAPS: [number, string][] = [
  [100, '100 MiB'],
  [1024, '1 GiB'],
  [10_240, '10 GiB'],
  [0, 'no limit'],
]

const KEPT: [number, string][] = [
  [0, 'nothing'],
  [256, '256 MiB'],
  [1024, '1 GiB'],
]

const FLAGS: [keyof ComputeRules & ('onBattery' | 'onMetered' | 'whileHidden'), string][] = [
  ['whileHidden', 'Compute while this tab is hidden'],
  ['onBattery', 'Compute on battery'],
  ['onMetered', 'Compute on a metered network, or with data saver'],
]

/** How much this tab may use. */
export function RulesForm() {
  const { rules, worker } = useStore(computing)
  // The cores of this computer are not known where the page is rendered for its export.
  const isInBrowser = useInBrowser()
  const threads = worker?.threads ?? (isInBrowser ? defaultThreads() : 1)
  const change = (news: Partial<ComputeRules>) => setRules({ ...rules, ...news })
  return (
    <section aria-labelledby="limits" className="panel flex flex-col gap-4 p-4">
      <h2 id="limits" className="text-base font-semibold">
        Limits
      </h2>
      <label className="flex flex-col gap-1">
        <span className="flex justify-between gap-2">
          <span>Processor time</span>
          <span className="font-semibold">
            {rules.sharePercent} % of {threads === 1 ? 'one core' : `${threads} cores`}
          </span>
        </span>
        <input
          type="range"
          min={5}
          max={100}
          step={5}
          value={rules.sharePercent}
          className="accent-(--accent)"
          onChange={({ target }) => change({ sharePercent: Number(target.value) })}
        />
      </label>
      <Choice
        text="Data in this tab’s life"
        value={rules.capMebibytes}
        options={CAPS}
        onChange={(capMebibytes) => change({ capMebibytes })}
      />
      <Choice
        text="Inputs kept for later tasks"
        value={rules.keptMebibytes}
        options={KEPT}
        onChange={(keptMebibytes) => change({ keptMebibytes })}
      />
      {FLAGS.map(([name, text]) => (
        <label key={name} className="flex items-center gap-2">
          <input
            type="checkbox"
            checked={rules[name]}
            className="accent-(--accent)"
            onChange={({ target }) => change({ [name]: target.checked })}
          />
          {text}
        </label>
      ))}
      <FunctionsChoice />
      <p className="text-ink-2 text-xs">
        Battery and network are known where the browser reports them. A browser may freeze or
        discard a hidden tab: its task then goes to another worker.
      </p>
    </section>
  )
}

/** Whether this tab runs functions from others: asked before it begins, stopped at once. */
function FunctionsChoice() {
  const { runsFunctions } = useStore(computing)
  const [isAsking, setAsking] = useState(false)
  return (
    <>
      <label className="flex items-center gap-2">
        <input
          type="checkbox"
          checked={runsFunctions}
          className="accent-(--accent)"
          onChange={({ target }) => (target.checked ? setAsking(true) : allowFunctions(false))}
        />
        Run functions from others
      </label>
      {isAsking && <FunctionsDialog onClose={() => setAsking(false)} />}
    </>
  )
}

/** One of some sizes in MiB; another one that was stored is an option too. */
function Choice({
  text,
  value,
  options,
  onChange,
}: {
  text: string
  value: number
  options: readonly [number, string][]
  onChange: (value: number) => void
}) {
  const isKnown = options.some(([size]) => size === value)
  return (
    <label className="flex items-center justify-between gap-2">
      <span>{text}</span>
      <select
        className="field w-auto"
        value={value}
        onChange={({ target }) => onChange(Number(target.value))}
      >
        {options.map(([size, name]) => (
          <option key={size} value={size}>
            {name}
          </option>
        ))}
        {!isKnown && <option value={value}>{value} MiB</option>}
      </select>
    </label>
  )
}
