/** Values as people read them. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** Bytes in binary units: `1.4 MiB`; never more than four digits before the unit. */
export function formatBytes(bytes: number | null | undefined): string {
  if (bytes === null || bytes === undefined || !Number.isFinite(bytes)) return '–'
  let value = Math.abs(bytes)
  let unit = 0
  while (unit < UNITS.length - 1 && value >= 999.5) {
    value /= 1024
    unit += 1
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1
  return `${bytes < 0 ? '−' : ''}${value.toFixed(digits)} ${UNITS[unit]}`
}

const COUNT = new Intl.NumberFormat('en-US')

/** A count with separators: `336,776`. */
export function formatCount(count: number | null | undefined): string {
  return count === null || count === undefined ? '–' : COUNT.format(count)
}

/** `1 row`, `2 rows`. */
export function plural(count: number, word: string, words = `${word}s`): string {
  return `${formatCount(count)} ${count === 1 ? word : words}`
}

/** A rate: `12.3 MiB/s`. */
export function formatRate(bytesPerSecond: number | null): string {
  return bytesPerSecond === null ? '–' : `${formatBytes(bytesPerSecond)}/s`
}

/** Format a duration: `48 ms`, `3.2 s`, `4 min 05 s`, `2 h 03 min`. */
export function formatElapsed(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–'
  if (seconds < 0.9995) return `${Math.max(0, Math.round(seconds * 1000))} ms`
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  const [hours, minutes, rest] = [
    Math.floor(whole / 3600),
    Math.floor((whole % 3600) / 60),
    whole % 60,
  ]
  if (hours > 0) return `${hours} h ${String(minutes).padStart(2, '0')} min`
  return `${minutes} min ${String(rest).padStart(2, '0')} s`
}

/** Time left, rounded so that it does not flicker: `a few seconds`, `about 20 s`, `about 3 min`. */
export function formatTimeLeft(seconds: number | null): string {
  if (seconds === null) return 'working out the time'
  if (seconds < 5) return 'a few seconds'
  if (seconds < 55) return `about ${Math.ceil(seconds / 5) * 5} s`
  if (seconds < 3300) return `about ${Math.ceil(seconds / 60)} min`
  return `about ${(seconds / 3600).toFixed(1)} h`
}

/** A fraction of 1 as a percentage that reaches 100 only when all is done. */
export function formatPercent(fraction: number): string {
  if (fraction >= 1) return '100 %'
  return `${Math.min(99, Math.floor(Math.max(0, fraction) * 100))} %`
}

/** Milliseconds since 1970 of a record's time (seconds, or RFC 3339 text); null when absent. */
export function timeMs(value: number | string | null | undefined): number | null {
  if (value === null || value === undefined) return null
  const ms = typeof value === 'number' ? value * 1000 : Date.parse(value)
  return Number.isFinite(ms) ? ms : null
}

/** `just now`, `4 min ago`, `3 h ago`, `yesterday`, else the date. */
export function formatAgo(ms: number | null, nowMs: number): string {
  if (ms === null) return '–'
  const seconds = (nowMs - ms) / 1000
  if (seconds < 45) return 'just now'
  if (seconds < 3570) return `${Math.max(1, Math.round(seconds / 60))} min ago`
  if (seconds < 86_400) return `${Math.round(seconds / 3600)} h ago`
  if (seconds < 172_800) return 'yesterday'
  return formatDate(ms)
}

/** `2026-11-21 14:05`, in the reader's time zone. */
export function formatDate(ms: number | null): string {
  if (ms === null) return '–'
  const at = new Date(ms)
  const two = (value: number) => String(value).padStart(2, '0')
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}`
}

/** Format a value of a SQL result for a cell; the caller handles null. */
export function formatCell(value: unknown): string {
  if (value === null || value === undefined) return 'NULL'
  if (typeof value === 'string') return value
  if (typeof value === 'object') return JSON.stringify(value)
  return String(value)
}
