// @ts-check
/** A text area with line numbers and syntax colours, painted below the transparent text.
 *
 * The painted text determines the size of the box; the text area fills it and shows only its caret
 * and selection; the box around both scrolls, so they stay aligned. */

import { h } from './dom.js'
import { offsetOf, tokens } from './rules_text.js'

/** @typedef {import('./api.js').Problem} Problem */

const INDENT = '  '
const PAINTED_CHARACTERS_MAX = 200_000 // longer text is shown without colours: painting would lag

export class Editor {
  /** @param {string} label @param {{changed: () => void, save: () => void}} on */
  constructor(label, on) {
    this.gutter = h('div', { className: 'gutter', 'aria-hidden': 'true' })
    this.painted = h('pre', { className: 'painted', 'aria-hidden': 'true' })
    this.area = h('textarea', {
      className: 'source',
      spellcheck: false,
      wrap: 'off',
      'aria-label': label,
      'aria-describedby': 'editor-keys',
      autocapitalize: 'off',
      autocomplete: 'off',
    })
    this.box = h(
      'div',
      { className: 'editor' },
      this.gutter,
      h('div', { className: 'code' }, this.painted, this.area),
    )
    this.keys = h(
      'span',
      { className: 'note', id: 'editor-keys' },
      'Tab indents; Escape, then Tab leaves the editor; Ctrl+S saves',
    )
    /** @type {Problem[]} */
    this.problems = []
    this.tabLeaves = false
    this.on = on
    this.area.oninput = () => {
      this.paint()
      on.changed()
    }
    this.area.onkeydown = (event) => this.press(event)
    this.area.onblur = () => (this.tabLeaves = false)
  }

  get text() {
    return this.area.value
  }

  set text(text) {
    this.area.value = text
    this.problems = []
    this.paint()
  }

  /** Replace the text so that the browser's undo can restore it.
   * @param {string} text */
  replace(text) {
    this.area.focus()
    this.area.select()
    this.insert(text)
    this.area.setSelectionRange(0, 0)
    this.box.scrollTop = 0
  }

  /** @param {string} text */
  insert(text) {
    // Deprecated and without a successor: every other way of writing clears the undo history.
    if (document.execCommand('insertText', false, text)) return
    this.area.setRangeText(text, this.area.selectionStart, this.area.selectionEnd, 'end')
    this.area.dispatchEvent(new Event('input'))
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    const isSave = (event.ctrlKey || event.metaKey) && event.key === 's'
    if (isSave) this.on.save()
    else if (event.key === 'Tab' && !event.shiftKey && !this.tabLeaves) this.insert(INDENT)
    else if (event.key === 'Enter' && !event.ctrlKey) this.insert(`\n${this.indentation()}`)
    else {
      if (event.key !== 'Tab') this.tabLeaves = event.key === 'Escape'
      return
    }
    event.preventDefault()
  }

  /** The indentation of the next line: that of this one, and more after a `{`. */
  indentation() {
    const before = this.text.slice(0, this.area.selectionStart)
    const line = before.slice(before.lastIndexOf('\n') + 1)
    const spaces = /^[ \t]*/.exec(line)?.[0] ?? ''
    return /[{[]\s*$/.test(line) ? spaces + INDENT : spaces
  }

  /** @param {Problem[]} problems */
  mark(problems) {
    this.problems = problems
    this.paint()
  }

  /** @param {Problem} problem */
  goTo(problem) {
    const at = offsetOf(this.text, problem.line, problem.column)
    this.area.focus({ preventScroll: true })
    this.area.setSelectionRange(at, at)
    const height = this.painted.scrollHeight / Math.max(1, this.text.split('\n').length)
    this.box.scrollTop = (problem.line - 4) * height
    this.box.scrollIntoView({ block: 'nearest' })
  }

  paint() {
    const source = this.text
    const marked = this.problems.map(({ line, column }) => offsetOf(source, line, column))
    const parts =
      source.length > PAINTED_CHARACTERS_MAX
        ? [{ kind: /** @type {const} */ ('mark'), text: source }]
        : tokens(source)
    const painted = document.createDocumentFragment()
    let at = 0
    for (const { kind, text } of parts) {
      const isWrong = marked.some((place) => place >= at && place < at + text.length)
      at += text.length
      if (kind === 'space' && !isWrong) painted.append(text)
      else painted.append(h('span', { className: isWrong ? `${kind} error` : kind }, text))
    }
    // An empty last line would have no height, and a problem at the end would not be visible.
    const atEnd = marked.some((place) => place >= source.length)
    painted.append(h('span', { className: atEnd ? 'error' : '' }, ' '))
    this.painted.replaceChildren(painted)
    this.number(source.split('\n').length)
  }

  /** @param {number} count */
  number(count) {
    const wrong = new Map(this.problems.map(({ line, text }) => [line, text]))
    const numbers = Array.from({ length: count }, (_none, index) => {
      const text = wrong.get(index + 1)
      const name = String(index + 1)
      return text ? h('span', { className: 'error', title: text }, name) : h('span', {}, name)
    })
    this.gutter.replaceChildren(...numbers)
  }
}
