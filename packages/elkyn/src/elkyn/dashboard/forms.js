// @ts-check
/** Boxes that open below the row that was clicked: edit a value, add a child, confirm a delete. */

import { urlOf, write } from './api.js'
import { h, messageOf } from './dom.js'

const ROWS_MAX = 24

/** @param {HTMLElement} place @param {string[]} keys @param {string} text */
export function edit(place, keys, text) {
  const rows = Math.min(ROWS_MAX, text.split('\n').length)
  openForm(place, { text, rows }, (_key, body) => write(urlOf(keys), 'PUT', body))
}

/** @param {HTMLElement} place @param {string[]} keys */
export function add(place, keys) {
  openForm(place, { text: '', rows: 1, named: true }, (key, body) =>
    key ? write(urlOf([...keys, key]), 'PUT', body) : write(urlOf(keys), 'POST', body),
  )
}

/** @param {HTMLElement} place @param {string[]} keys @param {() => void} [done] */
export function confirmDelete(place, keys, done) {
  const problem = problemLine()
  const sure = async () => {
    try {
      await write(urlOf(keys), 'DELETE')
      close()
      done?.()
    } catch (error) {
      problem.say(messageOf(error))
    }
  }
  const keep = h('button', { className: 'quiet', onclick: () => close() }, 'Keep')
  const close = openBox(
    place,
    'confirm delete',
    h('p', {}, 'Delete ', h('code', {}, `/${keys.join('/')}`), ' and everything below it?'),
    h('button', { className: 'danger', onclick: sure }, 'Delete'),
    keep,
    problem.line,
  )
  keep.focus()
}

/** Open a box below the row of `place`, above its children; replaces an open box.
 * @param {HTMLElement} place @param {string} name @param {import('./dom.js').Part[]} parts
 * @returns {() => void} closes it, and restores the focus */
function openBox(place, name, ...parts) {
  const before = document.activeElement
  place.querySelector(':scope > .edit')?.remove()
  const close = () => {
    const had = box.contains(document.activeElement)
    box.remove()
    if (had && before instanceof HTMLElement && before.isConnected) before.focus()
  }
  const onkeydown = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === 'Escape') close()
  }
  const box = h('div', { className: 'edit', role: 'group', 'aria-label': name, onkeydown })
  box.append(.../** @type {Node[]} */ (parts.filter(Boolean)))
  const row = place.querySelector(':scope > .row, :scope > .toolbar')
  if (row) row.after(box)
  else place.prepend(box)
  box.scrollIntoView({ block: 'nearest' })
  return close
}

function problemLine() {
  const line = h('p', { className: 'problem', role: 'alert', hidden: true })
  return {
    line,
    /** @param {string} text @param {HTMLElement} [remedy] */
    say(text, remedy) {
      line.replaceChildren(text, ...(remedy ? [' ', remedy] : []))
      line.hidden = !text
      if (text) line.scrollIntoView({ block: 'nearest' })
    },
  }
}

/** @param {HTMLElement} place @param {{text: string, rows: number, named?: boolean}} start
 * @param {(key: string, body: string) => Promise<unknown>} save */
function openForm(place, start, save) {
  const problem = problemLine()
  const oninput = () => problem.say('')
  const key = h('input', {
    className: 'mono',
    placeholder: 'key (empty: a push id)',
    'aria-label': 'key',
    oninput,
  })
  const area = h('textarea', {
    value: start.text,
    rows: start.rows,
    spellcheck: false,
    placeholder: 'value as JSON, such as "text", 12 or {"a": true}',
    'aria-label': 'value as JSON',
    oninput,
  })
  /** @param {string} body */
  const send = async (body) => {
    try {
      await save(key.value, body)
      close()
    } catch (error) {
      problem.say(messageOf(error))
    }
  }
  const submit = () => {
    const reason = whyNotJson(area.value)
    if (!reason) return send(area.value)
    const asText = JSON.stringify(area.value)
    const remedy = h('button', { onclick: () => send(asText) }, 'Save it as text')
    problem.say(
      `This is not JSON: ${reason}. A string needs quotes.`,
      area.value ? remedy : undefined,
    )
  }
  const onkeydown = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== 'Enter' || event.target instanceof HTMLButtonElement) return
    if (start.rows > 1 && !event.ctrlKey && !event.metaKey) return
    event.preventDefault()
    void submit()
  }
  key.addEventListener('keydown', onkeydown)
  area.addEventListener('keydown', onkeydown)
  const close = openBox(
    place,
    start.named ? 'add a child' : 'edit the value',
    start.named && key,
    area,
    h('button', { className: 'primary', onclick: submit }, 'Save'),
    h('button', { className: 'quiet', onclick: () => close() }, 'Cancel'),
    problem.line,
  )
  if (start.named) key.focus()
  else area.select()
}

/** @param {string} text @returns {string | null} */
function whyNotJson(text) {
  try {
    JSON.parse(text)
    return null
  } catch (error) {
    return messageOf(error)
  }
}
