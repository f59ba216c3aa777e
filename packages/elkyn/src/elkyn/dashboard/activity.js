// @ts-check
/** Connections and throughput: charts of the last minutes, sampled since the sign-in. */

import { text } from './api.js'
import { calm, complain, h } from './dom.js'
import { axisEnd, clock, FIGURES, History, linesOf, parseMetrics, short, SPANS } from './figures.js'

/** @typedef {import('./figures.js').Figure} Figure */

const EVERY_MS = 2000
const FIRST_MS = 400 // a rate needs two samples: take the second one soon
const SVG = 'http://www.w3.org/2000/svg'
const SPAN_DEFAULT_MS = 5 * 60_000

export class ActivityView {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place
    this.history = new History()
    this.span = SPAN_DEFAULT_MS
    this.timer = 0
    this.isStopped = false
    this.tiles = FIGURES.map((figure, index) => new Tile(figure, index))
    void this.sample()
  }

  show() {
    if (!this.place.contains(this.tiles[0]?.box ?? null)) this.build()
    this.draw()
  }

  stop() {
    this.isStopped = true
    clearTimeout(this.timer)
  }

  build() {
    const span = h(
      'select',
      { id: 'span' },
      ...SPANS.map(({ name, ms }) =>
        h('option', { value: String(ms), selected: ms === this.span }, name),
      ),
    )
    span.onchange = () => {
      this.span = Number(span.value)
      this.draw()
    }
    const bar = h(
      'div',
      { className: 'bar' },
      h('h2', {}, 'Activity of this server'),
      h('label', { className: 'field end' }, h('span', {}, 'time span'), span),
    )
    const boxes = this.tiles.map(({ box }) => box)
    const note = `Sampled every ${EVERY_MS / 1000} seconds while this page is open.`
    const tiles = h('div', { className: 'tiles' }, ...boxes)
    this.place.replaceChildren(bar, tiles, h('p', { className: 'note' }, note))
  }

  async sample() {
    try {
      const page = await text('/metrics')
      if (this.isStopped) return
      this.history.add(Date.now(), parseMetrics(page))
      calm('activity')
    } catch (error) {
      if (this.isStopped) return
      this.history.interrupt(Date.now())
      if (!this.place.hidden) complain(error, 'activity')
    }
    this.draw()
    const wait = this.history.samples.length < 2 ? FIRST_MS : EVERY_MS
    this.timer = window.setTimeout(() => void this.sample(), wait)
  }

  draw() {
    if (this.place.hidden) return
    for (const tile of this.tiles) tile.draw(this.history, this.span)
  }
}

/** One figure: its value now, and a chart with both axes. */
class Tile {
  /** @param {Figure} figure @param {number} index */
  constructor(figure, index) {
    this.figure = figure
    this.index = index
    this.number = h('b', {}, '–')
    this.chart = document.createElementNS(SVG, 'svg')
    this.chart.setAttribute('viewBox', '0 0 1000 100')
    this.chart.setAttribute('preserveAspectRatio', 'none')
    this.chart.setAttribute('aria-hidden', 'true')
    this.values = h('div', { className: 'values' })
    this.times = h('div', { className: 'times' })
    this.readout = h('span', { className: 'readout', hidden: true })
    this.plot = h('div', { className: 'plot', role: 'img' }, this.values, this.times, this.readout)
    this.plot.prepend(this.chart)
    /** @type {{history: History, now: number, span: number} | null} */
    this.drawn = null
    this.plot.onpointermove = (event) => this.readAt(event)
    this.plot.onpointerleave = () => (this.readout.hidden = true)
    const head = h(
      'div',
      { className: 'head' },
      this.number,
      h('span', { className: 'note' }, figure.unit),
    )
    this.box = h('div', { className: 'card tile' }, h('h3', {}, figure.name), head, this.plot)
  }

  /** @param {History} history @param {number} span in milliseconds */
  draw(history, span) {
    const now = history.samples.at(-1)?.at ?? Date.now()
    const all = history.samples.filter(({ at }) => at >= now - span - 2 * EVERY_MS)
    const values = all.flatMap(({ values }) => values[this.index] ?? [])
    const last = history.samples.at(-1)?.values[this.index]
    const most = Math.max(0, ...values)
    const end = axisEnd(most, this.figure.isCount ? 2 : 0)
    this.drawn = { history, now, span }
    this.number.textContent = last === null || last === undefined ? '–' : this.format(last)
    this.values.replaceChildren(...[end, end / 2, 0].map((each) => h('span', {}, short(each))))
    const times = [now - span, now - span / 2, now]
    this.times.replaceChildren(...times.map((at) => h('span', {}, clock(at, span))))
    this.plot.setAttribute(
      'aria-label',
      `${this.figure.name} since ${clock(now - span, span)}: now ${this.number.textContent}, at most ${this.format(most)} ${this.figure.unit}`,
    )
    const lines = linesOf(all, this.index, now, span, end)
    this.chart.replaceChildren(
      path('grid', 'M0 0H1000M0 50H1000M0 100H1000'),
      ...lines.flatMap((line) => {
        const points = line.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join('L')
        const [first, final] = [line[0]?.[0] ?? 0, line.at(-1)?.[0] ?? 0]
        return [
          path('area', `M${first.toFixed(1)} 100L${points}L${final.toFixed(1)} 100Z`),
          path('line', `M${points}`),
        ]
      }),
    )
  }

  /** @param {number} value */
  format(value) {
    return short(value, this.figure.digits)
  }

  /** Show the sample nearest to the pointer.
   * @param {PointerEvent} event */
  readAt(event) {
    if (!this.drawn) return
    const { history, now, span } = this.drawn
    const { left, width } = this.chart.getBoundingClientRect()
    const at = now - span * (1 - (event.clientX - left) / width)
    const distance = (/** @type {{at: number}} */ sample) => Math.abs(sample.at - at)
    const nearest = history.samples.reduce(
      (best, sample) => (!best || distance(sample) < distance(best) ? sample : best),
      history.samples[0],
    )
    const value = nearest?.values[this.index]
    this.readout.hidden = value === null || value === undefined
    if (!nearest || value === null || value === undefined) return
    this.readout.textContent = `${this.format(value)} at ${clock(nearest.at, 0)}`
  }
}

/** @param {string} name @param {string} points */
function path(name, points) {
  const element = document.createElementNS(SVG, 'path')
  element.setAttribute('class', name)
  element.setAttribute('d', points)
  return element
}
