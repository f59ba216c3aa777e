/** Queued appends, from `/api/network/queue`, in words. */

/** An append that waits for the node that writes its table, or was not committed. */
export interface QueuedAppend {
  id: string
  /** The table's name. */
  dataset: string
  datasetId: string
  /** The id of the node that writes it. */
  writer: string
  user: string
  /** `waiting`, `sent`, `refused`, `expired` or `unknown`. */
  state: string
  statement: string
  bytes: number
  /** Unix seconds. */
  queuedAt: number
  /** Unix seconds until which it waits, or is asked for. */
  expiresAt: number
  error: { error: string; hint?: string | null } | null
}

export type AppendTone = 'warn' | 'bad' | 'unknown'

const STATES: Record<string, { text: string; tone: AppendTone }> = {
  waiting: { text: 'waits for its writer', tone: 'warn' },
  sent: { text: 'sent, may be committed', tone: 'warn' },
  refused: { text: 'refused', tone: 'bad' },
  expired: { text: 'expired, not committed', tone: 'bad' },
  unknown: { text: 'unknown whether it is committed', tone: 'bad' },
}

/** The state of an append, in words. */
export function stateOf({ state }: QueuedAppend): { text: string; tone: AppendTone } {
  return STATES[state] ?? { text: state, tone: 'unknown' }
}

/** Whether an append can be queued again. */
export function mayRetry({ state }: QueuedAppend): boolean {
  return state === 'refused' || state === 'expired'
}

/** Whether the append may be committed although it is removed here. */
export function mayBeCommitted({ state }: QueuedAppend): boolean {
  return state === 'sent' || state === 'unknown'
}

/** What its removal means. */
export function removalOf(append: QueuedAppend): string {
  if (append.state === 'sent') {
    return 'It was sent, and may be committed. If you remove it, this node no longer asks whether it was.'
  }
  if (append.state === 'unknown') {
    return 'It was sent, and its writer has not answered. Look whether its rows are there before you repeat it.'
  }
  return 'It is not committed. Its rows are deleted here.'
}
