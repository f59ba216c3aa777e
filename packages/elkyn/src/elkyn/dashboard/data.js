// @ts-check
/** The data of a namespace: one open node with its path, search, query and tree of children. */

import { linkTo, outline } from './api.js'
import { Branch, countOf, editWhole, valueButton } from './branch.js'
import { calm, complain, h } from './dom.js'
import { add, confirmDelete } from './forms.js'
import { parametersOf, queryForm } from './query.js'
import { showSearch } from './search.js'

/** @typedef {import('./api.js').Outline} Outline */
/** @typedef {import('./query.js').QueryFields} QueryFields */

const REFRESH_MS = 250

export class DataView {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place
    /** @type {string[]} */
    this.keys = []
    /** @type {Map<string, Branch>} the lists that are unfolded, by path */
    this.branches = new Map()
    /** @type {Set<string>} paths that have changed since the last refresh */
    this.stale = new Set()
    /** @type {QueryFields | null} */
    this.fields = null
    this.timer = 0
    this.count = h('span', { className: 'note count' })
    this.hint = h('p', { className: 'hint', hidden: true })
    this.form = h('div')
    this.body = h('div')
    /** @type {'map' | 'leaf' | null} what `body` shows */
    this.shown = null
  }

  /** Open the node at a path; an open node stays unchanged.
   * @param {string[]} keys */
  show(keys) {
    const isOpen = this.place.contains(this.body) && keys.join('/') === this.keys.join('/')
    if (isOpen) return
    this.keys = keys
    this.fields = null
    this.form.replaceChildren()
    this.place.replaceChildren(this.pathRow(), this.toolbar(), this.form, this.hint, this.body)
    void this.load()
  }

  /** @param {string[]} keys */
  go(keys) {
    location.hash = linkTo(keys)
  }

  pathRow() {
    const steps = this.keys.flatMap((key, index) => [
      index ? '/' : '',
      h('a', { href: linkTo(this.keys.slice(0, index + 1)) }, key),
    ])
    const root = h('a', { href: linkTo([]), 'aria-label': 'root' }, '/')
    return h('nav', { className: 'path', 'aria-label': 'path' }, root, ...steps, this.count)
  }

  toolbar() {
    const input = h('input', {
      type: 'search',
      placeholder: 'Search keys and values, or go to a /path',
      'aria-label': 'search keys and values, or go to a path',
    })
    const onsubmit = (/** @type {Event} */ event) => {
      event.preventDefault()
      this.search(input.value.trim())
    }
    const oninput = () => input.value || this.shown || void this.load()
    const find = h('form', { role: 'search', onsubmit, oninput }, input, h('button', {}, 'Search'))
    const query = h('button', { 'aria-expanded': 'false' }, 'Query')
    query.onclick = () => {
      const isOpen = Boolean(this.form.firstChild)
      if (isOpen) this.form.replaceChildren()
      else this.openQuery()
      query.setAttribute('aria-expanded', String(!isOpen))
    }
    const up = () => this.go(this.keys.slice(0, -1))
    const whole = () => editWhole(this.place, this.keys)
    return h(
      'div',
      { className: 'toolbar' },
      find,
      query,
      h('button', { onclick: () => add(this.place, this.keys) }, 'Add child'),
      h('button', { onclick: whole }, 'Edit as JSON'),
      this.keys.length > 0 &&
        h('button', { onclick: () => confirmDelete(this.place, this.keys, up) }, 'Delete'),
    )
  }

  /** @param {string} text */
  search(text) {
    if (text.startsWith('/')) return this.go(text.split('/').filter(Boolean))
    if (!text) return this.load()
    this.branches.clear()
    this.shown = null
    this.form.hidden = this.hint.hidden = true
    return showSearch(this.body, this.keys, text, () => void this.load())
  }

  openQuery() {
    const path = `/${this.keys.join('/')}`
    const apply = (/** @type {QueryFields | null} */ fields) => {
      this.fields = fields
      if (!fields) this.openQuery()
      void this.load()
    }
    this.form.replaceChildren(queryForm(this.fields, path, apply))
    this.form.querySelector('select')?.focus()
  }

  /** Read the open node, and show it as a map or a leaf. */
  async load() {
    this.branches.clear()
    this.hint.hidden = true
    this.form.hidden = false
    const keys = this.keys
    try {
      const node = await outline(keys, { limit: 1 })
      if (keys !== this.keys) return
      calm('data')
      this.summarize(node)
      if (node.kind === 'map') this.showMap()
      else this.showLeaf(node)
    } catch (error) {
      this.body.replaceChildren()
      complain(error, 'data')
    }
  }

  showMap() {
    this.shown = 'map'
    const list = h('ul', { className: 'tree card', 'aria-label': `/${this.keys.join('/')}` })
    this.body.replaceChildren(list)
    const query = this.fields ? parametersOf(this.fields) : undefined
    const loaded = (/** @type {Outline} */ node) => {
      if (node.kind === 'map') this.summarize(node)
      else this.showLeaf(node)
    }
    const branch = new Branch(this, this.keys, list, { query, loaded })
    this.branches.set(this.keys.join('/'), branch)
    void branch.load()
  }

  /** @param {Outline} node a value, or nothing */
  showLeaf(node) {
    this.shown = 'leaf'
    this.branches.clear()
    this.summarize(node)
    if (node.kind === 'null') {
      const text = 'There is nothing at this path. Add a child, or edit it as JSON.'
      this.body.replaceChildren(h('p', { className: 'card empty' }, text))
      return
    }
    const item = h('li')
    item.append(h('div', { className: 'row' }, valueButton(item, this.keys, node)))
    this.body.replaceChildren(h('ul', { className: 'tree card' }, item))
  }

  /** Show the number of children of the node, and a missing index of its query.
   * @param {Outline} node */
  summarize(node) {
    this.count.textContent = node.kind === 'map' ? countOf(node) : ''
    this.hint.hidden = node.indexed !== false
    const order = this.fields?.order === 'child' ? this.fields.child : '.value'
    this.hint.replaceChildren(
      'Admins can query without an index; clients need ',
      h('code', {}, `".indexOn": ${JSON.stringify(order)}`),
      ` in the rules of /${this.keys.join('/')}.`,
    )
  }

  /** @param {string} path */
  forget(path) {
    for (const known of [...this.branches.keys()])
      if (known === path || known.startsWith(`${path}/`)) this.branches.delete(known)
  }

  /** Read again the nodes that changed paths affect, once for changes that arrive together.
   * @param {string[]} paths */
  changed(paths) {
    for (const path of paths) this.stale.add(path.replace(/^\//, ''))
    if (!this.timer) this.timer = window.setTimeout(() => this.refresh(), REFRESH_MS)
  }

  refresh() {
    this.timer = 0
    const stale = [...this.stale]
    this.stale.clear()
    const isStale = (/** @type {string} */ path) => stale.some((changed) => touches(path, changed))
    if (this.shown === 'leaf' && isStale(this.keys.join('/'))) {
      void this.refreshLeaf()
      return
    }
    for (const [path, branch] of this.branches) if (isStale(path)) void branch.load()
  }

  async refreshLeaf() {
    if (this.body.querySelector('.edit')) return // an edit is in progress: saving it overwrites the change
    await this.load()
  }
}

/** @param {string} path @param {string} changed */
function touches(path, changed) {
  return (
    path === '' ||
    changed === '' ||
    path === changed ||
    path.startsWith(`${changed}/`) ||
    changed.startsWith(`${path}/`)
  )
}
