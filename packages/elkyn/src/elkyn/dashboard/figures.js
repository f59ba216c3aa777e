// @ts-check
/** Figures over time, computed from the counters of /metrics, and their axes. */

/** @typedef {Map<string, number>} Counters */
/** A value is null where it is unknown: a rate needs two samples of one run of the server.
 * @typedef {{name: string, unit: string, digits?: number, isCount?: boolean, of: (now: Counters, before: Counters | null, seconds: number) => number | null}} Figure */
/** @typedef {{at: number, values: (number | null)[]}} Sample */

export const SPANS = [
  { name: '1 min', ms: 60_000 },
  { name: '5 min', ms: 5 * 60_000 },
  { name: '15 min', ms: 15 * 60_000 },
  { name: '1 hour', ms: 60 * 60_000 },
]

/** @param {string} name @param {string} metric @returns {Figure} */
const rate = (name, metric) => ({
  name,
  unit: 'per second',
  of: (now, before, seconds) => {
    const grown = before && total(now, metric) - total(before, metric)
    return grown === null || grown < 0 || seconds <= 0 ? null : grown / seconds
  },
})

/** @param {string} name @param {string} unit @param {string} metric @returns {Figure} */
const gauge = (name, unit, metric) => ({
  name,
  unit,
  isCount: true,
  of: (now) => total(now, metric),
})

/** @type {Figure[]} */
export const FIGURES = [
  gauge('Connections', 'open: requests, streams, sockets', 'elkyn_connections'),
  gauge('Event streams', 'open', 'elkyn_connections{kind="sse"}'),
  gauge('WebSockets', 'open', 'elkyn_connections{kind="ws"}'),
  rate('Reads', 'elkyn_reads_total'),
  rate('Writes', 'elkyn_writes_total'),
  rate('Events', 'elkyn_events_total'),
  rate('Bytes sent', 'elkyn_bytes_out_total'),
  gauge('Waiting writes', 'for their commit', 'elkyn_waiting_writes'),
  {
    name: 'Commit',
    unit: 'milliseconds on average',
    digits: 2,
    of: (now, before) => {
      if (!before) return null
      const commits = total(now, 'elkyn_commits_total') - total(before, 'elkyn_commits_total')
      const spent =
        total(now, 'elkyn_commit_seconds_total') - total(before, 'elkyn_commit_seconds_total')
      return commits > 0 ? (1000 * spent) / commits : commits < 0 ? null : 0
    },
  },
]

/** @param {Counters} counters @param {string} metric with or without its labels */
function total(counters, metric) {
  let sum = 0
  for (const [name, value] of counters)
    if (name === metric || name.startsWith(`${metric}{`)) sum += value
  return sum
}

/** @param {string} page @returns {Counters} */
export function parseMetrics(page) {
  const lines = page.split('\n').filter((line) => line && !line.startsWith('#'))
  return new Map(
    lines.map((line) => [
      line.slice(0, line.lastIndexOf(' ')),
      Number(line.slice(line.lastIndexOf(' ') + 1)),
    ]),
  )
}

/** The samples of the longest span, the oldest first. */
export class History {
  constructor() {
    /** @type {Sample[]} */
    this.samples = []
    /** @type {Counters | null} */
    this.before = null
  }

  /** @param {number} at in milliseconds @param {Counters} now */
  add(at, now) {
    const seconds = (at - (this.samples.at(-1)?.at ?? at)) / 1000
    this.samples.push({ at, values: FIGURES.map(({ of }) => of(now, this.before, seconds)) })
    this.before = now
    const oldest = at - (SPANS.at(-1)?.ms ?? 0)
    // One sample older than the span is kept, so that the line begins at the left edge.
    while ((this.samples[1]?.at ?? Infinity) < oldest) this.samples.shift()
  }

  /** Record that the server did not answer: the next sample has no rate since the last one.
   * @param {number} at */
  interrupt(at) {
    this.before = null
    if (this.samples.at(-1)?.values.some((value) => value !== null))
      this.samples.push({ at, values: FIGURES.map(() => null) })
  }
}

/** The end of a value axis: the least of 1, 2, 4, 6, 8 times a power of ten that is at least `most`,
 * so that half of it is a round number too.
 * @param {number} most @param {number} [least] 2 for counts, whose halves must be integers */
export function axisEnd(most, least = 0) {
  if (!(most > 0)) return least || 1
  const power = 10 ** Math.floor(Math.log10(most))
  const step = [1, 2, 4, 6, 8, 10].find((each) => each * power >= most * (1 - 1e-9)) ?? 10
  return Math.max(step * power, least)
}

/** A number on an axis or a tile: few digits, thousands as k.
 * @param {number} value @param {number} [digits] */
export function short(value, digits = value < 10 && value % 1 ? 1 : 0) {
  if (Math.abs(value) < 10_000) return value.toLocaleString('en', { maximumFractionDigits: digits })
  const units = ['', 'k', 'M', 'G', 'T']
  const power = Math.min(4, Math.floor(Math.log10(Math.abs(value)) / 3))
  const shown = value / 1000 ** power
  return `${shown.toLocaleString('en', { maximumSignificantDigits: 3 })}${units[power]}`
}

/** The time of day, with seconds if the span is a few minutes.
 * @param {number} at @param {number} span in milliseconds */
export function clock(at, span) {
  const second = span <= 5 * 60_000 ? /** @type {const} */ ('2-digit') : undefined
  return new Date(at).toLocaleTimeString('en-GB', {
    hour: '2-digit',
    minute: '2-digit',
    ...(second && { second }),
  })
}

/** The lines of a chart of 1000 by 100: one for each sequence of samples with a value.
 * @param {Sample[]} samples @param {number} index of the figure @param {number} now
 * @param {number} span in milliseconds @param {number} end of the value axis */
export function linesOf(samples, index, now, span, end) {
  /** @type {[number, number][][]} */
  const lines = [[]]
  for (const { at, values } of samples) {
    const value = values[index]
    if (value === null || value === undefined) lines.push([])
    else lines.at(-1)?.push([1000 * (1 - (now - at) / span), 100 - (100 * value) / end])
  }
  return lines.filter((line) => line.length)
}
