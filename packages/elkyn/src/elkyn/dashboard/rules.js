// @ts-check
/** The rules: edit, save with problems shown where they stand, and try a request against them. */

import { Refused, text, write } from './api.js'
import { calm, complain, h } from './dom.js'

const EMPTY = '{\n  "rules": {\n    ".read": false,\n    ".write": false\n  }\n}\n'

/** @param {HTMLElement} place */
export async function showRules(place) {
  const source = h('textarea', { className: 'source', spellcheck: false, 'aria-label': 'rules' })
  const problems = h('ul', { className: 'problems', 'aria-live': 'polite' })
  const saved = h('span', { className: 'note', role: 'status' })
  const save = h('button', { className: 'primary' }, 'Save')
  save.onclick = async () => {
    problems.replaceChildren()
    try {
      await write('/.settings/rules.json', 'PUT', source.value)
      calm()
      saved.textContent = 'saved; they hold from now on'
    } catch (error) {
      saved.textContent = 'the old rules still hold'
      showProblems(problems, source, error)
    }
  }
  source.oninput = () => (saved.textContent = 'not saved')
  const editor = h('div', {}, source, h('div', { className: 'bar' }, save, saved), problems)
  place.replaceChildren(h('div', { className: 'split' }, editor, trial(source, problems)))
  try {
    source.value = (await text('/.settings/rules.json')) || EMPTY
    if (source.value.trim() === 'null') source.value = EMPTY
  } catch (error) {
    complain(error)
  }
}

/** @param {HTMLElement} list @param {HTMLTextAreaElement} source @param {unknown} error */
function showProblems(list, source, error) {
  const found = error instanceof Refused ? error.details?.problems : null
  if (!found) {
    complain(error)
    return
  }
  const items = found.map((/** @type {{line: number, column: number, text: string}} */ problem) => {
    const onclick = () => caret(source, problem.line, problem.column)
    return h(
      'li',
      {},
      h('button', { onclick }, `line ${problem.line}, column ${problem.column}: ${problem.text}`),
    )
  })
  list.replaceChildren(...items)
}

/** @param {HTMLTextAreaElement} source @param {number} line @param {number} column */
function caret(source, line, column) {
  const lines = source.value.split('\n')
  const at = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0) + column - 1
  source.focus()
  source.setSelectionRange(at, at)
  source.scrollTop = (line - 6) * parseFloat(getComputedStyle(source).lineHeight)
}

/** @param {HTMLTextAreaElement} source @param {HTMLElement} problems */
function trial(source, problems) {
  const method = h(
    'select',
    { id: 'try-method' },
    h('option', {}, 'read'),
    h('option', {}, 'write'),
  )
  const path = h('input', { id: 'try-path', className: 'mono', value: '/' })
  const auth = h('textarea', {
    id: 'try-auth',
    rows: 3,
    value: '{"uid": "ann"}',
    spellcheck: false,
  })
  const value = h('textarea', {
    id: 'try-value',
    rows: 3,
    value: '{"name": "Ann"}',
    spellcheck: false,
  })
  const verdict = h('div', { className: 'verdict', role: 'status' })
  const trace = h('pre', { className: 'trace', hidden: true })
  const run = async () => {
    problems.replaceChildren()
    try {
      const asked = {
        rules: source.value,
        method: method.value,
        path: path.value,
        auth: JSON.parse(auth.value || 'null'),
        value: JSON.parse(value.value || 'null'),
      }
      const answer = await write('/.settings/simulate.json', 'POST', JSON.stringify(asked))
      calm()
      verdict.className = answer.allowed ? 'verdict yes' : 'verdict no'
      verdict.textContent = answer.allowed ? 'allowed' : 'refused'
      trace.hidden = !answer.trace.length
      trace.textContent = answer.trace.join('\n')
    } catch (error) {
      verdict.textContent = ''
      trace.hidden = true
      if (error instanceof SyntaxError) complain(`auth and value are JSON: ${error.message}`)
      else showProblems(problems, source, error)
    }
  }
  const row = (/** @type {string} */ name, /** @type {HTMLElement} */ field) => [
    h('label', { htmlFor: field.id }, name),
    field,
  ]
  const form = h(
    'div',
    { className: 'form' },
    ...row('request', method),
    ...row('path', path),
    ...row('auth', auth),
    ...row('new value', value),
  )
  const button = h('button', { onclick: run }, 'Try')
  return h(
    'div',
    { className: 'card' },
    h('h2', {}, 'Try a request against these rules'),
    form,
    h('div', { className: 'bar' }, button),
    verdict,
    trace,
  )
}
