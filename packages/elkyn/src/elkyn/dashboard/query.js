// @ts-check
/** The REST query of a node: an order, a range and a limit, and the form for them. */

import { h } from './dom.js'

/** @typedef {'key' | 'value' | 'priority' | 'child'} Order */
/** @typedef {'any' | 'equal' | 'from' | 'to' | 'between' | 'prefix'} Range */
/** @typedef {{order: Order, child: string, range: Range, low: string, high: string, end: 'first' | 'last', limit: string}} QueryFields */

const LAST_CHARACTER = '\uf8ff'
/** @type {[Order, string][]} */
const ORDERS = [
  ['key', 'key'],
  ['child', 'child …'],
  ['value', 'value'],
  ['priority', 'priority'],
]
/** @type {[Range, string][]} */
const RANGES = [
  ['any', 'any'],
  ['equal', 'is'],
  ['from', 'is at least'],
  ['to', 'is at most'],
  ['between', 'is between'],
  ['prefix', 'starts with'],
]

/** The parameters of a REST request for these fields.
 * @param {QueryFields} fields @returns {Record<string, string>} */
export function parametersOf(fields) {
  const order = fields.order === 'child' ? fields.child.trim() : `$${fields.order}`
  if (!order) throw new Error('Name the child to order by, such as age or address/city.')
  /** @param {string} text */
  const bound = (text) =>
    JSON.stringify(fields.order === 'key' || fields.range === 'prefix' ? text : scalarOf(text))
  /** @type {Record<string, string>} */
  const parameters = { orderBy: JSON.stringify(order) }
  if (fields.range === 'equal') parameters.equalTo = bound(fields.low)
  if (['from', 'between', 'prefix'].includes(fields.range)) parameters.startAt = bound(fields.low)
  if (fields.range === 'prefix') parameters.endAt = bound(fields.low + LAST_CHARACTER)
  if (fields.range === 'to') parameters.endAt = bound(fields.low)
  if (fields.range === 'between') parameters.endAt = bound(fields.high)
  const limit = fields.limit.trim()
  if (limit) parameters[fields.end === 'last' ? 'limitToLast' : 'limitToFirst'] = limit
  return parameters
}

/** The value of a text that may not be JSON: a string without quotes is accepted.
 * @param {string} text @returns {string | number | boolean | null} */
export function scalarOf(text) {
  try {
    const value = JSON.parse(text)
    return typeof value === 'object' && value !== null ? text : value
  } catch {
    return text
  }
}

/** @param {QueryFields | null} start @param {string} path
 * @param {(fields: QueryFields | null) => void} apply with null to show all children again */
export function queryForm(start, path, apply) {
  const order = select('order by', ORDERS, start?.order ?? 'key')
  const child = text('path of the child', start?.child ?? '', 'age or address/city')
  const range = select('range', RANGES, start?.range ?? 'any')
  const low = text('value', start?.low ?? '', 'value')
  const high = text('highest value', start?.high ?? '', 'value')
  const and = h('span', {}, 'and')
  /** @type {[QueryFields['end'], string][]} */
  const ends = [
    ['first', 'the first'],
    ['last', 'the last'],
  ]
  const end = select('which end', ends, start?.end ?? 'first')
  const limit = h('input', {
    type: 'number',
    min: '1',
    max: '1000',
    value: start?.limit ?? '',
    placeholder: 'all',
    'aria-label': 'how many',
  })
  const address = h('code', { className: 'request' })
  const problem = h('p', { className: 'problem', role: 'alert', hidden: true })
  /** @returns {QueryFields} */
  const fields = () => ({
    order: /** @type {Order} */ (order.value),
    child: child.value,
    range: /** @type {Range} */ (range.value),
    low: low.value,
    high: high.value,
    end: end.value === 'last' ? 'last' : 'first',
    limit: limit.value,
  })
  const show = () => {
    const now = fields()
    child.hidden = now.order !== 'child'
    low.hidden = now.range === 'any'
    high.hidden = and.hidden = now.range !== 'between'
    problem.hidden = true
    try {
      address.textContent = `GET ${path}.json?${readable(parametersOf(now))}`
    } catch {
      address.textContent = ''
    }
  }
  const onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault()
    try {
      parametersOf(fields())
      apply(fields())
    } catch (error) {
      problem.textContent = /** @type {Error} */ (error).message
      problem.hidden = false
    }
  }
  const clear = h(
    'button',
    { type: 'button', className: 'quiet', onclick: () => apply(null) },
    'Clear',
  )
  const form = h(
    'form',
    { className: 'query card', 'aria-label': 'query', onsubmit, oninput: show },
    h('span', {}, 'order by'),
    order,
    child,
    h('span', {}, 'that'),
    range,
    low,
    and,
    high,
    h('span', {}, 'show'),
    end,
    limit,
    h('button', { className: 'primary' }, 'Apply'),
    clear,
    problem,
    address,
  )
  show()
  return form
}

/** A readable query string: only characters that would end a parameter are encoded.
 * @param {Record<string, string>} parameters */
function readable(parameters) {
  return Object.entries(parameters)
    .map(([name, value]) => `${name}=${value.replace(/[%&#+]/g, encodeURIComponent)}`)
    .join('&')
}

/** @template {string} T @param {string} label @param {[T, string][]} options @param {T} value */
function select(label, options, value) {
  return h(
    'select',
    { 'aria-label': label },
    ...options.map(([each, name]) => h('option', { value: each, selected: each === value }, name)),
  )
}

/** @param {string} label @param {string} value @param {string} placeholder */
function text(label, value, placeholder) {
  return h('input', { className: 'mono', 'aria-label': label, value, placeholder })
}
