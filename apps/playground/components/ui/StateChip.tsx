const TONES: Record<string, string> = {
  queued: 'text-ink-2 bg-sunken',
  pending: 'text-ink-2 bg-sunken',
  leased: 'text-run bg-run-soft',
  running: 'text-run bg-run-soft',
  merging: 'text-run bg-run-soft',
  done: 'text-good bg-good-soft',
  failed: 'text-bad bg-bad-soft',
  poisoned: 'text-bad bg-bad-soft',
  cancelled: 'text-warn bg-warn-soft',
  alive: 'text-good bg-good-soft',
  suspect: 'text-warn bg-warn-soft',
  leaving: 'text-warn bg-warn-soft',
  dead: 'text-bad bg-bad-soft',
  doubted: 'text-warn bg-warn-soft',
  confirmed: 'text-good bg-good-soft',
  corrected: 'text-warn bg-warn-soft',
  connected: 'text-good bg-good-soft',
  computing: 'text-run bg-run-soft',
  paused: 'text-warn bg-warn-soft',
  reconnecting: 'text-warn bg-warn-soft',
}

const DOTS: Record<string, string> = {
  queued: 'border border-current',
  pending: 'border border-current',
  cancelled: 'border border-current',
  left: 'border border-current',
  unknown: 'border border-current',
}

/** The state of a job, a task or a node as a word; the dot only helps the eye. */
export function StateChip({ state }: { state: string }) {
  return (
    <span
      className={`text-2xs inline-flex items-center gap-1.5 rounded-full px-2 py-0.5 font-semibold ${TONES[state] ?? 'bg-sunken text-ink-2'}`}
    >
      <span aria-hidden className={`size-1.5 rounded-full ${DOTS[state] ?? 'bg-current'}`} />
      {state}
    </span>
  )
}
