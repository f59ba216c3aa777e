/** When a tab computes for the node, and how much: what its user has chosen, and what the browser reports. */

/** What the user chooses; kept in the browser. */
export interface ComputeRules {
  /** The share of the time in which kernels run, in percent. */
  sharePercent: number
  /** Data that this tab receives and sends, in MiB; 0 for no limit. */
  capMebibytes: number
  /** Inputs that the browser keeps for later tasks, in MiB; 0 for none. */
  keptMebibytes: number
  onBattery: boolean
  onMetered: boolean
  whileHidden: boolean
}

/** What the browser reports; null where it does not. */
export interface Surroundings {
  isHidden: boolean
  isOnBattery: boolean | null
  isMetered: boolean | null
}

export const DEFAULT_RULES: ComputeRules = {
  sharePercent: 50,
  capMebibytes: 1024,
  keptMebibytes: 256,
  onBattery: false,
  onMetered: false,
  whileHidden: true,
}

const SHARE_MIN = 5
const CAP_MAX = 1 << 20

/** Why the tab pauses, in words that follow "Paused: "; null to compute. */
export function pauseReason(
  rules: ComputeRules,
  surroundings: Surroundings,
  isByHand: boolean,
): string | null {
  if (isByHand) return 'by you'
  if (surroundings.isOnBattery && !rules.onBattery) return 'on battery'
  if (surroundings.isMetered && !rules.onMetered) return 'metered network'
  if (surroundings.isHidden && !rules.whileHidden) return 'tab hidden'
  return null
}

/** Rules as the worker takes them. */
export function controlsOf(rules: ComputeRules): {
  share: number
  bytesMax: number
  inputBytesMax: number
} {
  const bytesMax = rules.capMebibytes > 0 ? rules.capMebibytes * 2 ** 20 : Infinity
  return {
    share: rules.sharePercent / 100,
    bytesMax,
    inputBytesMax: rules.keptMebibytes * 2 ** 20,
  }
}

/** Rules from storage, which may be damaged or of another version. */
export function readRules(text: string | null): ComputeRules {
  let found: Partial<Record<keyof ComputeRules, unknown>> = {}
  try {
    const parsed: unknown = JSON.parse(text ?? '')
    if (typeof parsed === 'object' && parsed !== null) found = parsed
  } catch {
    // Nothing was stored, or it is damaged.
  }
  const number = (
    name: 'sharePercent' | 'capMebibytes' | 'keptMebibytes',
    min: number,
    max: number,
  ): number => {
    const value = found[name]
    return typeof value === 'number' && value >= min && value <= max
      ? Math.round(value)
      : DEFAULT_RULES[name]
  }
  const flag = (name: 'onBattery' | 'onMetered' | 'whileHidden'): boolean => {
    const value = found[name]
    return typeof value === 'boolean' ? value : DEFAULT_RULES[name]
  }
  return {
    sharePercent: number('sharePercent', SHARE_MIN, 100),
    capMebibytes: number('capMebibytes', 0, CAP_MAX),
    keptMebibytes: number('keptMebibytes', 0, CAP_MAX),
    onBattery: flag('onBattery'),
    onMetered: flag('onMetered'),
    whileHidden: flag('whileHidden'),
  }
}

/** Whether another token is worth a try: the last one has expired, and not at once. */
export function mayJoinAgain(ended: string, joinedAt: number, now: number): boolean {
  return ended.includes('(4403)') && now - joinedAt > 60_000
}
