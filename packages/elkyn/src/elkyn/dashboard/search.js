// @ts-check
/** The results of a search of keys and values below a node. */

import { linkTo, search } from './api.js'
import { shown, valueButton } from './branch.js'
import { formatCount, h, messageOf } from './dom.js'

/** Show the nodes below `keys` whose key or value contains `text`, in `place`.
 * @param {HTMLElement} place @param {string[]} keys @param {string} text
 * @param {() => void} close shows the tree again */
export async function showSearch(place, keys, text, close) {
  const list = h('ul', { className: 'tree found' })
  const summary = h('p', { className: 'note', role: 'status' }, 'searching …')
  const on = h('button', { className: 'small', hidden: true }, 'Continue the search')
  const back = h('button', { className: 'small', onclick: close }, 'Close the search')
  place.replaceChildren(
    h('div', { className: 'card' }, h('div', { className: 'bar' }, summary, on, back), list),
  )
  let searched = 0
  let after = ''
  const run = async () => {
    on.hidden = true
    try {
      const answer = await search(keys, text, after)
      searched += answer.searched
      after = answer.after ?? ''
      list.append(...answer.found.map(item))
      const where = keys.length ? `/${keys.join('/')}` : 'the tree'
      const nodes = `${formatCount(list.children.length)} found in ${formatCount(searched)} nodes`
      summary.textContent = `“${text}”: ${nodes} of ${where}${after ? ' so far' : ''}`
      on.hidden = !after
    } catch (error) {
      summary.textContent = messageOf(error)
      on.hidden = false
    }
  }
  on.onclick = run
  await run()
}

/** @param {import('./api.js').Found} node */
function item(node) {
  const keys = node.path.split('/').filter(Boolean)
  const place = h('li')
  place.dataset.path = node.path
  const path = h('a', { className: 'key', href: linkTo(keys), title: node.path }, node.path)
  const value =
    node.kind === 'map'
      ? h('span', { className: 'note' }, shown(node))
      : valueButton(place, keys, node)
  place.append(h('div', { className: 'row' }, path, value))
  return place
}
