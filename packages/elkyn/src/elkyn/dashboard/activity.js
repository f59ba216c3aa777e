// @ts-check
/** Connections and throughput, from the counters that /metrics shows. */

import { text } from './api.js'
import { calm, complain, h } from './dom.js'

const EVERY_MS = 2000
const KEPT = 90

/** @typedef {Map<string, number>} Counters */
/** @typedef {{name: string, unit: string, of: (now: Counters, before: Counters, seconds: number) => number, digits?: number}} Figure */

/** @param {string} name @param {string} metric @returns {Figure} */
const rate = (name, metric) => ({
  name,
  unit: 'a second',
  of: (now, before, seconds) => (total(now, metric) - total(before, metric)) / seconds,
})

/** @type {Figure[]} */
const FIGURES = [
  {
    name: 'Connections',
    unit: 'open: requests, streams, sockets',
    of: (now) => total(now, 'elkyn_connections'),
  },
  {
    name: 'Event streams',
    unit: 'open',
    of: (now) => now.get('elkyn_connections{kind="sse"}') ?? 0,
  },
  { name: 'WebSockets', unit: 'open', of: (now) => now.get('elkyn_connections{kind="ws"}') ?? 0 },
  rate('Reads', 'elkyn_reads_total'),
  rate('Writes', 'elkyn_writes_total'),
  rate('Events', 'elkyn_events_total'),
  {
    name: 'Writes waiting',
    unit: 'for their commit',
    of: (now) => total(now, 'elkyn_waiting_writes'),
  },
  {
    name: 'Commit',
    unit: 'milliseconds on average',
    digits: 2,
    of: (now, before) => {
      const commits = total(now, 'elkyn_commits_total') - total(before, 'elkyn_commits_total')
      const spent =
        total(now, 'elkyn_commit_seconds_total') - total(before, 'elkyn_commit_seconds_total')
      return commits ? (1000 * spent) / commits : 0
    },
  },
]

/** @param {Counters} counters @param {string} metric */
function total(counters, metric) {
  let sum = 0
  for (const [name, value] of counters)
    if (name === metric || name.startsWith(`${metric}{`)) sum += value
  return sum
}

/** @param {string} page @returns {Counters} */
function parse(page) {
  const lines = page.split('\n').filter((line) => line && !line.startsWith('#'))
  return new Map(
    lines.map((line) => [
      line.slice(0, line.lastIndexOf(' ')),
      Number(line.slice(line.lastIndexOf(' ') + 1)),
    ]),
  )
}

/** @param {HTMLElement} place */
export function showActivity(place) {
  const tiles = FIGURES.map((figure) => {
    const number = h('b', {}, '–')
    const line = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
    line.setAttribute('viewBox', `0 0 ${KEPT - 1} 40`)
    line.setAttribute('preserveAspectRatio', 'none')
    line.setAttribute('aria-hidden', 'true')
    return { figure, number, line, history: /** @type {number[]} */ ([]) }
  })
  const boxes = tiles.map(({ figure, number, line }) =>
    h(
      'div',
      { className: 'card tile' },
      h('h2', {}, figure.name),
      number,
      h('span', { className: 'note' }, figure.unit),
      line,
    ),
  )
  place.replaceChildren(h('div', { className: 'tiles' }, ...boxes))
  const shown = boxes[0]
  /** @type {Counters | null} */
  let before = null
  let at = performance.now()
  const tick = async () => {
    if (!shown?.isConnected || place.hidden) return
    try {
      const now = parse(await text('/metrics'))
      const seconds = (performance.now() - at) / 1000
      at = performance.now()
      if (before) for (const tile of tiles) draw(tile, tile.figure.of(now, before, seconds))
      before = now
      calm()
    } catch (error) {
      complain(error)
    }
    setTimeout(tick, before && tiles[0]?.history.length ? EVERY_MS : 400)
  }
  void tick()
}

/** @param {{figure: Figure, number: HTMLElement, line: SVGElement, history: number[]}} tile @param {number} value */
function draw(tile, value) {
  tile.history.push(value)
  if (tile.history.length > KEPT) tile.history.shift()
  const digits = tile.figure.digits ?? (value < 10 && value % 1 ? 1 : 0)
  tile.number.textContent = value.toLocaleString(undefined, { maximumFractionDigits: digits })
  const most = Math.max(1e-9, ...tile.history)
  const start = KEPT - tile.history.length
  const points = tile.history.map(
    (each, index) => `${start + index} ${(38 - (36 * each) / most).toFixed(1)}`,
  )
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path')
  path.setAttribute('d', `M${points.join('L')}`)
  tile.line.replaceChildren(path)
}
