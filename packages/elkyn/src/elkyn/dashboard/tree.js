// @ts-check
/** The tree: children by pages of a hundred, values edited in place, changes as they happen. */

import { outline, read, urlOf, write } from './api.js'
import { calm, complain, h } from './dom.js'

/** @typedef {import('./api.js').Child} Child */

const REFRESH_MS = 250

/** One node that is unfolded: its list, and how far it was read. */
class Branch {
  /** @param {DataView} view @param {string[]} keys @param {HTMLUListElement} list */
  constructor(view, keys, list) {
    this.view = view
    this.keys = keys
    this.list = list
    /** @type {Child[]} */
    this.children = []
    this.pages = 1
    this.more = false
  }

  /** Read as many pages as are shown; rows of unfolded children stay. */
  async load() {
    /** @type {Child[]} */
    const found = []
    let more = true
    for (let page = 0; page < this.pages && more; page += 1) {
      const part = await outline(this.keys, found.at(-1)?.key ?? '')
      found.push(...(part.children ?? []))
      more = part.more ?? false
    }
    const before = new Map(this.children.map((child) => [child.key, shape(child)]))
    const known = this.children.length > 0
    this.children = found
    this.more = more
    this.render((child) => known && before.get(child.key) !== shape(child))
  }

  /** @param {(child: Child) => boolean} isNew */
  render(isNew) {
    const kept = new Map(
      [...this.list.children].map((item) => [/** @type {HTMLElement} */ (item).dataset.key, item]),
    )
    const items = this.children.map((child) => {
      const item = kept.get(child.key)
      const same = item && /** @type {HTMLElement} */ (item).dataset.shape === shape(child)
      return same ? item : this.item(child, isNew(child))
    })
    if (!items.length) items.push(h('li', { className: 'note row' }, 'nothing here'))
    if (this.more) items.push(this.moreButton())
    arrange(this.list, items)
  }

  moreButton() {
    const onclick = () => {
      this.pages += 1
      this.load().catch(complain)
    }
    return h('li', {}, h('button', { className: 'quiet', onclick }, 'show 100 more'))
  }

  /** @param {Child} child @param {boolean} changed */
  item(child, changed) {
    const keys = [...this.keys, child.key]
    const item = h('li', { role: 'treeitem' })
    item.dataset.key = child.key
    item.dataset.shape = shape(child)
    const row = h('div', { className: changed ? 'row changed' : 'row' })
    const key = h('span', { className: 'key' }, child.key)
    if (child.kind === 'map')
      row.append(this.fold(item, keys), key, h('span', { className: 'note' }, '{…}'))
    else row.append(h('span', { className: 'fold' }), key, ':', this.value(item, keys, child))
    row.append(this.acts(item, keys, child))
    item.append(row)
    return item
  }

  /** @param {HTMLElement} item @param {string[]} keys */
  fold(item, keys) {
    const path = keys.join('/')
    const button = h(
      'button',
      { className: 'fold', 'aria-label': `unfold ${keys.at(-1)}`, 'aria-expanded': 'false' },
      '▸',
    )
    button.onclick = () => {
      const shown = this.view.branches.get(path)
      button.textContent = shown ? '▸' : '▾'
      button.setAttribute('aria-expanded', String(!shown))
      if (shown) {
        shown.list.remove()
        this.view.forget(path)
      } else {
        const list = h('ul', { role: 'group' })
        item.append(list)
        this.view.unfold(keys, list)
      }
    }
    return button
  }

  /** @param {HTMLElement} item @param {string[]} keys @param {Child} child */
  value(item, keys, child) {
    const onclick = () =>
      child.cut ? this.view.whole(keys, item) : edit(item, keys, JSON.stringify(child.value))
    const shown = JSON.stringify(child.value) + (child.cut ? '…' : '')
    return h('button', { className: `value ${child.kind}`, title: 'edit', onclick }, shown)
  }

  /** @param {HTMLElement} item @param {string[]} keys @param {Child} child */
  acts(item, keys, child) {
    const name = keys.at(-1)
    return h(
      'span',
      { className: 'acts' },
      h(
        'button',
        { title: `open ${name}`, 'aria-label': `open ${name}`, onclick: () => this.view.go(keys) },
        '→',
      ),
      h(
        'button',
        {
          title: 'add a child',
          'aria-label': `add a child to ${name}`,
          onclick: () => add(item, keys),
        },
        '+',
      ),
      child.kind === 'map' &&
        h(
          'button',
          {
            title: 'edit as JSON',
            'aria-label': `edit ${name}`,
            onclick: () => this.view.whole(keys, item),
          },
          '✎',
        ),
      h(
        'button',
        { title: 'delete', 'aria-label': `delete ${name}`, onclick: () => remove(item, keys) },
        '×',
      ),
    )
  }
}

export class DataView {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place
    /** @type {string[]} */
    this.keys = []
    /** @type {Map<string, Branch>} */
    this.branches = new Map()
    /** @type {Set<string>} */
    this.stale = new Set()
    this.timer = 0
  }

  /** @param {string[]} keys */
  go(keys) {
    this.keys = keys
    return this.load()
  }

  async load() {
    this.branches.clear()
    calm()
    try {
      const top = await outline(this.keys)
      const list = h('ul', {
        className: 'tree card',
        role: 'tree',
        'aria-label': `/${this.keys.join('/')}`,
      })
      this.place.replaceChildren(this.crumbs(), list)
      if (top.kind === 'map') {
        this.unfold(this.keys, list)
      } else {
        this.branches.set(this.keys.join('/'), new Single(this, this.keys, list))
        void this.branches.get(this.keys.join('/'))?.load()
      }
    } catch (error) {
      complain(error)
    }
  }

  crumbs() {
    const parts = this.keys.map((key, index) =>
      h('button', { onclick: () => this.go(this.keys.slice(0, index + 1)) }, key),
    )
    const end = h(
      'span',
      { className: 'end' },
      h('button', { onclick: () => add(this.place, this.keys) }, 'Add'),
      h('button', { onclick: () => this.whole(this.keys, this.place) }, 'Edit as JSON'),
    )
    const steps = parts.flatMap((part, index) => (index ? ['/', part] : [part]))
    return h(
      'div',
      { className: 'crumbs' },
      h('button', { onclick: () => this.go([]), 'aria-label': 'root' }, '/'),
      ...steps,
      end,
    )
  }

  /** @param {string[]} keys @param {HTMLUListElement} list */
  unfold(keys, list) {
    const branch = new Branch(this, keys, list)
    this.branches.set(keys.join('/'), branch)
    branch.load().catch(complain)
  }

  /** @param {string} path */
  forget(path) {
    for (const known of [...this.branches.keys()]) {
      if (known === path || known.startsWith(`${path}/`)) this.branches.delete(known)
    }
  }

  /** @param {string[]} keys @param {HTMLElement} item */
  async whole(keys, item) {
    try {
      const answer = await read(urlOf(keys), { format: 'export' })
      edit(item, keys, JSON.stringify(answer, null, 2))
    } catch (error) {
      complain(error)
    }
  }

  /** Read again what the changed paths touch, once for all that come together.
   * @param {string[]} paths */
  changed(paths) {
    for (const path of paths) this.stale.add(path.replace(/^\//, ''))
    if (!this.timer) this.timer = window.setTimeout(() => this.refresh(), REFRESH_MS)
  }

  refresh() {
    this.timer = 0
    const stale = [...this.stale]
    this.stale.clear()
    for (const [path, branch] of this.branches) {
      if (stale.some((changed) => touches(path, changed))) branch.load().catch(complain)
    }
  }
}

/** A path that holds one value and no children. */
class Single extends Branch {
  /** @override */
  async load() {
    const found = await outline(this.keys)
    if (found.kind === 'map') return this.view.load()
    if (found.kind === 'null') {
      this.list.replaceChildren(
        h(
          'li',
          { className: 'empty' },
          'There is nothing at this path. Add a child, or edit it as JSON.',
        ),
      )
      return
    }
    const child = /** @type {Child} */ ({ ...found, key: this.keys.at(-1) ?? '/' })
    const item = h('li', {})
    item.append(h('div', { className: 'row' }, this.value(item, this.keys, child)))
    this.list.replaceChildren(item)
  }
}

/** Make `items` the children of `list`; what stays where it is keeps the focus.
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

/** @param {Child} child */
function shape(child) {
  return child.kind === 'map' ? 'map' : JSON.stringify([child.kind, child.value, child.cut])
}

/** @param {HTMLElement} item @param {string[]} keys @param {string} text */
function edit(item, keys, text) {
  form(item, { text, rows: Math.min(24, text.split('\n').length) }, (_key, body) =>
    write(urlOf(keys), 'PUT', body),
  )
}

/** @param {HTMLElement} item @param {string[]} keys */
function add(item, keys) {
  form(item, { text: '', rows: 1, named: true }, (key, body) =>
    key ? write(urlOf([...keys, key]), 'PUT', body) : write(urlOf(keys), 'POST', body),
  )
}

/** @param {HTMLElement} item @param {string[]} keys */
function remove(item, keys) {
  item.querySelector(':scope > .edit')?.remove()
  const close = () => box.remove()
  const sure = () => write(urlOf(keys), 'DELETE').then(close, complain)
  const box = h(
    'div',
    { className: 'edit' },
    `Delete /${keys.join('/')} and all below?`,
    h('button', { onclick: sure }, 'Delete'),
    h('button', { className: 'quiet', onclick: close }, 'Keep'),
  )
  item.append(box)
}

/** @param {HTMLElement} item @param {{text: string, rows: number, named?: boolean}} start @param {(key: string, body: string) => Promise<unknown>} save */
function form(item, start, save) {
  item.querySelector(':scope > .edit')?.remove()
  const key = h('input', {
    className: 'mono',
    placeholder: 'key (empty: push)',
    'aria-label': 'key',
  })
  const area = h('textarea', {
    value: start.text,
    rows: start.rows,
    spellcheck: false,
    placeholder: 'JSON',
    'aria-label': 'value as JSON',
  })
  const close = () => box.remove()
  const submit = async () => {
    try {
      JSON.parse(area.value)
      await save(key.value, area.value)
      calm()
      close()
    } catch (error) {
      complain(
        error instanceof SyntaxError
          ? `This is not JSON: ${error.message}. Text needs quotes.`
          : error,
      )
    }
  }
  const onkeydown = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === 'Escape') close()
    if (event.key === 'Enter' && (start.rows === 1 || event.ctrlKey || event.metaKey)) {
      event.preventDefault()
      void submit()
    }
  }
  const save_ = h('button', { className: 'primary', onclick: submit }, 'Save')
  const box = h(
    'div',
    { className: 'edit', onkeydown },
    start.named && key,
    area,
    save_,
    h('button', { className: 'quiet', onclick: close }, 'Cancel'),
  )
  const list = item.querySelector(':scope > ul')
  if (list) list.before(box)
  else item.append(box)
  ;(start.named ? key : area).focus()
}
