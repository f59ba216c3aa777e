// @ts-check
/** The children of one node as rows, in pages; changed rows are updated in place. */

import { linkTo, outline, PAGE, PAGE_MAX, readToEdit } from './api.js'
import { calm, complain, formatCount, h, messageOf } from './dom.js'
import { add, confirmDelete, edit } from './forms.js'

/** @typedef {import('./api.js').Child} Child */
/** @typedef {import('./api.js').Outline} Outline */
/** @typedef {import('./api.js').Outlined} Outlined */
/** The part of the owning view that branches use.
 * @typedef {{branches: Map<string, Branch>, forget: (path: string) => void}} Owner */

/** The list of one unfolded node, and how many of its pages are shown. */
export class Branch {
  /** @param {Owner} owner @param {string[]} keys @param {HTMLUListElement} list
   * @param {{query?: Record<string, string> | undefined, loaded?: (node: Outline) => void}} [options]
   *   the query of a filtered node; `loaded` is called with each answer */
  constructor(owner, keys, list, { query, loaded } = {}) {
    this.owner = owner
    this.keys = keys
    this.list = list
    this.query = query
    this.loaded = loaded
    /** @type {Child[]} */
    this.children = []
    this.pages = 1
    this.more = false
  }

  /** Read the shown children again; an error replaces the rows until the next load. */
  async load() {
    try {
      const node = await (this.query ? this.readQuery(this.query) : this.readPages())
      const before = new Map(this.children.map((child) => [child.key, valueOf(child)]))
      const isFirst = !this.children.length
      this.children = node.children ?? []
      this.more = node.more ?? false
      this.render((child) => !isFirst && before.get(child.key) !== valueOf(child))
      this.loaded?.(node)
    } catch (error) {
      const onclick = () => this.load()
      const again = h('button', { className: 'small', onclick }, 'Try again')
      this.list.replaceChildren(
        h('li', { className: 'failed', role: 'alert' }, messageOf(error), ' ', again),
      )
    }
  }

  /** The path of the child by which a query orders. */
  get order() {
    return String(JSON.parse(this.query?.orderBy ?? '""'))
  }

  /** @param {Record<string, string>} query */
  readQuery(query) {
    return outline(this.keys, { ...query, limit: Math.min(PAGE_MAX, PAGE * this.pages) })
  }

  async readPages() {
    const node = await outline(this.keys)
    const children = [...(node.children ?? [])]
    let more = node.more ?? false
    for (let page = 1; page < this.pages && more; page += 1) {
      const next = await outline(this.keys, { after: children.at(-1)?.key ?? '' })
      children.push(...(next.children ?? []))
      more = next.more ?? false
    }
    return { ...node, children, more }
  }

  /** @param {(child: Child) => boolean} isChanged */
  render(isChanged) {
    const known = new Map(
      /** @type {HTMLLIElement[]} */ ([...this.list.children]).map((item) => [
        item.dataset.key,
        item,
      ]),
    )
    const items = this.children.map((child) => this.item(child, known.get(child.key), isChanged))
    if (!items.length) {
      const text = this.query ? 'No child matches this query.' : 'There are no children here.'
      items.push(h('li', { className: 'note row' }, text))
    }
    if (this.more) items.push(this.moreItem())
    arrange(this.list, items)
  }

  moreItem() {
    if (this.query && PAGE * this.pages >= PAGE_MAX)
      return h('li', { className: 'note row' }, 'There are more: narrow the query to see them.')
    const onclick = () => {
      this.pages += 1
      void this.load()
    }
    return h('li', {}, h('button', { className: 'quiet', onclick }, `show ${PAGE} more`))
  }

  /** Return the item of a child: the existing one, with a new row if the child changed.
   * @param {Child} child @param {HTMLLIElement | undefined} known
   * @param {(child: Child) => boolean} isChanged */
  item(child, known, isChanged) {
    const keys = [...this.keys, child.key]
    const shape = JSON.stringify(child)
    const item = known ?? h('li')
    if (item.dataset.shape === shape) return item
    item.dataset.key = child.key
    item.dataset.shape = shape
    if (child.kind !== 'map') {
      item.querySelector(':scope > ul')?.remove()
      this.owner.forget(keys.join('/'))
    }
    const row = this.row(item, keys, child)
    if (isChanged(child)) row.classList.add('changed')
    replaceRow(item, row)
    return item
  }

  /** @param {HTMLLIElement} item @param {string[]} keys @param {Child} child */
  row(item, keys, child) {
    const key = h('a', { className: 'key', href: linkTo(keys), title: child.key }, child.key)
    const order = child.by && h('span', { className: 'note' }, `${this.order}: ${shown(child.by)}`)
    if (child.kind === 'map') {
      const count = h('span', { className: 'note count' }, countOf(child))
      return h(
        'div',
        { className: 'row' },
        this.fold(item, keys),
        key,
        count,
        order,
        acts(item, keys),
      )
    }
    return h(
      'div',
      { className: 'row' },
      h('span', { className: 'fold' }, '\u00a0'), // has a baseline, like a button's sign
      key,
      h('span', { className: 'colon' }, ':'),
      valueButton(item, keys, child),
      order,
      acts(item, keys, child),
    )
  }

  /** @param {HTMLLIElement} item @param {string[]} keys */
  fold(item, keys) {
    const path = keys.join('/')
    const button = h('button', { className: 'fold', 'aria-label': `unfold ${keys.at(-1)}` })
    const show = () => {
      const isOpen = this.owner.branches.has(path)
      button.textContent = isOpen ? '▾' : '▸'
      button.setAttribute('aria-expanded', String(isOpen))
    }
    button.onclick = () => {
      const open = this.owner.branches.get(path)
      if (open) {
        open.list.remove()
        this.owner.forget(path)
      } else {
        const list = h('ul')
        item.append(list)
        const branch = new Branch(this.owner, keys, list)
        this.owner.branches.set(path, branch)
        void branch.load()
      }
      show()
    }
    show()
    return button
  }
}

/** @param {HTMLElement} item @param {string[]} keys @param {Outlined} node */
export function valueButton(item, keys, node) {
  const onclick = () =>
    node.cut ? editWhole(item, keys) : edit(item, keys, JSON.stringify(node.value))
  return h('button', { className: `value ${node.kind}`, title: 'edit', onclick }, shown(node))
}

/** Edit the whole value at a path, with priorities.
 * @param {HTMLElement} place @param {string[]} keys */
export async function editWhole(place, keys) {
  try {
    const text = await readToEdit(keys)
    calm('edit')
    edit(place, keys, text)
  } catch (error) {
    complain(error, 'edit')
  }
}

/** @param {HTMLElement} item @param {string[]} keys @param {Child} [leaf] */
function acts(item, keys, leaf) {
  const name = keys.at(-1)
  /** @param {string} sign @param {string} title @param {string} label @param {() => unknown} onclick */
  const button = (sign, title, label, onclick) =>
    h('button', { title, 'aria-label': label, onclick }, sign)
  return h(
    'span',
    { className: 'acts' },
    button('+', 'add a child', `add a child to ${name}`, () => add(item, keys)),
    !leaf && button('✎', 'edit as JSON', `edit ${name}`, () => editWhole(item, keys)),
    button('×', 'delete', `delete ${name}`, () => confirmDelete(item, keys)),
  )
}

/** The number of children of a map, in `[…]` for a map that is read as an array.
 * @param {Outlined} node */
export function countOf(node) {
  if (node.count === undefined || (node.capped && !node.count)) return '{ … }'
  const count = `${formatCount(node.count)}${node.capped ? '+' : ''}`
  if (node.list) return `[ ${count} ${node.count === 1 ? 'item' : 'items'} ]`
  return `{ ${count} ${node.count === 1 && !node.capped ? 'child' : 'children'} }`
}

/** @param {Outlined} node */
export function shown(node) {
  if (node.kind === 'map') return countOf(node)
  return node.kind === 'null' ? 'null' : JSON.stringify(node.value) + (node.cut ? '…' : '')
}

/** The text whose change makes a row flash: its value, not its number of children.
 * @param {Child} child */
function valueOf(child) {
  return JSON.stringify([child.kind, child.value, child.cut])
}

/** Replace a row; the focused button keeps the focus.
 * @param {HTMLElement} item @param {HTMLElement} row */
function replaceRow(item, row) {
  const old = item.querySelector(':scope > .row')
  if (!old) {
    item.prepend(row)
    return
  }
  const at = focusable(old).indexOf(/** @type {HTMLElement} */ (document.activeElement))
  old.replaceWith(row)
  if (at >= 0) focusable(row)[at]?.focus()
}

/** @param {Element} row */
function focusable(row) {
  return /** @type {HTMLElement[]} */ ([...row.querySelectorAll('a, button')])
}

/** Make `items` the children of `list`; items that stay in place keep the focus.
 * @param {HTMLElement} list @param {Node[]} items */
function arrange(list, items) {
  const wanted = new Set(items)
  for (const item of [...list.childNodes]) if (!wanted.has(item)) item.remove()
  let at = list.firstChild
  for (const item of items) {
    if (item === at) at = at.nextSibling
    else list.insertBefore(item, at)
  }
}
