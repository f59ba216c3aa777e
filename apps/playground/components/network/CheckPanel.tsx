'use client'

import { CircleAlert, CircleCheck, Stethoscope } from 'lucide-react'
import { useState } from 'react'

import { Failed } from '@/components/ui/States'
import { useAction } from '@/lib/hooks'
import { verdict, type Finding } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'

import { HealButton } from './HealButton'
import { SectionTitle } from './SectionTitle'

/** Examines the network on request, and says what to do about each problem. */
export function CheckPanel() {
  const [findings, setFindings] = useState<Finding[] | null>(null)
  const { busy, error, run } = useAction()
  const check = () => run(async () => setFindings((await networkApi.check()).findings))
  return (
    <section aria-labelledby="check">
      <SectionTitle id="check" title="Check">
        <button type="button" className="button button-small" disabled={busy} onClick={check}>
          <Stethoscope size={13} aria-hidden />
          {busy ? 'Checking…' : findings ? 'Check again' : 'Check the network'}
        </button>
        <HealButton dataset={null} label="Repair all copies" />
      </SectionTitle>
      {error && (
        <Failed
          title="The network was not checked"
          message={error.message}
          hint={error.hint}
          onRetry={check}
        />
      )}
      <div className="panel px-5 py-3" aria-live="polite">
        {findings === null ? (
          <p className="text-ink-2">
            A check asks every node, and lets some of them connect to this one: addresses, clocks,
            versions, copies, room and damage.
          </p>
        ) : (
          <Findings findings={findings} />
        )}
      </div>
    </section>
  )
}

function Findings({ findings }: { findings: readonly Finding[] }) {
  const [all, setAll] = useState(false)
  const problems = findings.filter(({ ok }) => !ok)
  const shown = all ? [...problems, ...findings.filter(({ ok }) => ok)] : problems
  const passed = findings.length - problems.length
  return (
    <>
      <div className="flex flex-wrap items-center justify-between gap-2">
        <p className={`font-semibold ${problems.length > 0 ? 'text-bad' : 'text-good'}`}>
          {verdict(findings)}
        </p>
        {passed > 0 && (
          <button
            type="button"
            className="button button-quiet button-small"
            aria-expanded={all}
            onClick={() => setAll(!all)}
          >
            {all ? 'Hide what is right' : `Show the ${passed} that passed`}
          </button>
        )}
      </div>
      {shown.length > 0 && <FindingList findings={shown} />}
    </>
  )
}

/** Findings with what to do about each. */
export function FindingList({ findings }: { findings: readonly Finding[] }) {
  return (
    <ul className="divide-line mt-2 divide-y">
      {findings.map((each, index) => (
        <li key={index} className="flex gap-2.5 py-2">
          {each.ok ? (
            <CircleCheck
              size={15}
              role="img"
              aria-label="Passed"
              className="text-good mt-0.5 shrink-0"
            />
          ) : (
            <CircleAlert
              size={15}
              role="img"
              aria-label="Problem"
              className="text-bad mt-0.5 shrink-0"
            />
          )}
          <div className="min-w-0">
            <p>
              <span className="font-semibold">{each.subject}</span>: {each.found}
            </p>
            {each.remedy && <p className="text-ink-2">What to do: {each.remedy}.</p>}
          </div>
        </li>
      ))}
    </ul>
  )
}
