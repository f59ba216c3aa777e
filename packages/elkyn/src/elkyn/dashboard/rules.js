// @ts-check
/** The rules editor: colours, line numbers, checks while typing, saving, trial requests. */

import { problemsOf, session, text, write } from './api.js'
import { calm, complain, h, messageOf } from './dom.js'
import { Editor } from './editor.js'
import { format } from './rules_text.js'
import { trial } from './trial.js'

/** @typedef {import('./api.js').Problem} Problem */

const EMPTY = '{\n  "rules": {\n    ".read": false,\n    ".write": false\n  }\n}\n'
const CHECK_MS = 400

export class RulesView {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place
    this.saved = ''
    this.timer = 0
    this.checks = 0
    this.isShown = false
    this.state = h('span', { className: 'note', role: 'status' })
    this.problem = h('p', { className: 'problem', role: 'alert', hidden: true })
    this.list = h('ul', { className: 'problems', 'aria-live': 'polite' })
    this.editor = new Editor('rules', { changed: () => this.changed(), save: () => this.save() })
    this.trial = trial(() => this.editor.text)
    this.saveButton = h('button', { className: 'primary', onclick: () => this.save() }, 'Save')
    this.revertButton = h('button', { onclick: () => this.revert() }, 'Revert')
  }

  get isChanged() {
    return this.isShown && this.editor.text !== this.saved
  }

  /** Show the unsaved rules, or those of the server when there are no unsaved changes. */
  show() {
    if (!this.isShown) this.build()
    if (!this.isChanged) void this.load()
  }

  build() {
    this.isShown = true
    const bar = h(
      'div',
      { className: 'bar' },
      this.saveButton,
      h('button', { onclick: () => this.format() }, 'Format'),
      this.revertButton,
      this.state,
    )
    const title = h('h2', {}, `Rules of ${session.namespace}`)
    const below = [this.problem, this.list, this.editor.keys]
    const edited = h('div', { className: 'edited' }, title, bar, this.editor.box, ...below)
    this.place.replaceChildren(h('div', { className: 'split' }, edited, this.trial.card))
  }

  async load() {
    try {
      const found = await text('/.settings/rules.json')
      if (this.isChanged) return // edited meanwhile
      const source = found.trim() === 'null' || !found ? EMPTY : found
      if (source !== this.editor.text) this.editor.text = source
      this.saved = this.editor.text
      this.showState('')
      this.showProblems([])
      calm('rules')
    } catch (error) {
      complain(error, 'rules')
    }
  }

  changed() {
    this.trial.clear()
    this.say('')
    this.showState(this.isChanged ? 'not saved' : '')
    clearTimeout(this.timer)
    this.timer = window.setTimeout(() => void this.check(), CHECK_MS)
  }

  /** Let the server check the rules, by a trial request whose result is ignored. */
  async check() {
    const check = (this.checks += 1)
    const request = { rules: this.editor.text, method: 'read', path: '/', auth: null }
    /** @type {Problem[]} */
    let found = []
    try {
      await write('/.settings/simulate.json', 'POST', JSON.stringify(request))
    } catch (error) {
      found = problemsOf(error) ?? []
    }
    if (check === this.checks) this.showProblems(found)
  }

  async save() {
    clearTimeout(this.timer)
    this.checks += 1 // the results of earlier checks are ignored
    const source = this.editor.text
    this.say('')
    try {
      await write('/.settings/rules.json', 'PUT', source)
      this.saved = source
      this.showState(this.isChanged ? 'not saved' : 'saved: in force from now on')
      this.showProblems([])
    } catch (error) {
      const problems = problemsOf(error)
      this.showState('not saved: the previous rules are still in force')
      this.showProblems(problems ?? [])
      if (!problems) this.say(messageOf(error))
    }
  }

  revert() {
    this.editor.replace(this.saved)
    this.changed()
  }

  format() {
    const formatted = format(this.editor.text)
    if (formatted === null) {
      this.say('Only complete rules can be formatted: close every brace, quote and comment first.')
    } else if (formatted !== this.editor.text) {
      this.editor.replace(formatted)
      this.changed()
    }
  }

  /** @param {string} text */
  say(text) {
    this.problem.textContent = text
    this.problem.hidden = !text
  }

  /** @param {string} text */
  showState(text) {
    this.state.textContent = text
    this.saveButton.disabled = this.revertButton.disabled = !this.isChanged
  }

  /** @param {Problem[]} problems */
  showProblems(problems) {
    if (problems.length || this.editor.problems.length) this.editor.mark(problems)
    const items = problems.map((problem) => {
      const place = `line ${problem.line}, column ${problem.column}`
      const onclick = () => this.editor.goTo(problem)
      return h('li', {}, h('button', { onclick }, `${place}: ${problem.text}`))
    })
    this.list.replaceChildren(...items)
  }
}
