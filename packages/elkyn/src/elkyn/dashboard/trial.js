// @ts-check
/** The form that evaluates a request against the rules in the editor, saved or not. */

import { problemsOf, write } from './api.js'
import { h, messageOf } from './dom.js'

/** @param {() => string} source the rules
 * @returns {{card: HTMLElement, clear: () => void}} `clear` removes the result of other rules */
export function trial(source) {
  const clear = () => {
    verdict.textContent = ''
    trace.hidden = problem.hidden = true
  }
  const verdict = h('div', { className: 'verdict', role: 'status' })
  const trace = h('pre', { className: 'trace', hidden: true, tabIndex: 0 })
  const problem = h('p', { className: 'problem', role: 'alert', hidden: true })
  const method = h(
    'select',
    { id: 'try-method' },
    h('option', {}, 'read'),
    h('option', {}, 'write'),
  )
  const path = h('input', { id: 'try-path', className: 'mono', value: '/' })
  const auth = area('try-auth', '{"uid": "ann"}')
  const value = area('try-value', '{"name": "Ann"}')
  const valueLabel = h('label', { htmlFor: value.id }, 'new value')
  const showValue = () => {
    value.hidden = valueLabel.hidden = method.value === 'read'
  }
  const run = async () => {
    clear()
    try {
      const request = {
        rules: source(),
        method: method.value,
        path: path.value,
        auth: parsed('auth', auth.value),
        value: parsed('the new value', value.value),
      }
      const answer = await write('/.settings/simulate.json', 'POST', JSON.stringify(request))
      verdict.className = answer.allowed ? 'verdict yes' : 'verdict no'
      verdict.textContent = answer.allowed ? 'allowed' : 'refused'
      trace.hidden = !answer.trace.length
      trace.textContent = answer.trace.join('\n')
    } catch (error) {
      const isRules = problemsOf(error) !== null
      problem.textContent = isRules
        ? 'Fix the rules first: their problems are listed below them.'
        : messageOf(error)
      problem.hidden = false
    }
  }
  const row = (/** @type {string} */ name, /** @type {HTMLElement} */ field) => [
    h('label', { htmlFor: field.id }, name),
    field,
  ]
  showValue()
  const card = h(
    'form',
    {
      className: 'card',
      oninput: () => {
        clear()
        showValue()
      },
      onsubmit: (/** @type {Event} */ event) => {
        event.preventDefault()
        void run()
      },
    },
    h('h2', {}, 'Try a request against these rules'),
    h(
      'div',
      { className: 'form' },
      ...row('request', method),
      ...row('path', path),
      ...row('auth', auth),
      valueLabel,
      value,
    ),
    h('div', { className: 'bar' }, h('button', {}, 'Try')),
    problem,
    verdict,
    trace,
  )
  return { card, clear }
}

/** @param {string} id @param {string} value */
function area(id, value) {
  return h('textarea', { id, rows: 3, value, spellcheck: false })
}

/** @param {string} name @param {string} text */
function parsed(name, text) {
  try {
    return JSON.parse(text || 'null')
  } catch (error) {
    throw new Error(`${name} is not JSON: ${messageOf(error)}`)
  }
}
