// @ts-check
/** Elements from a name, properties and children; text is always text, never markup. Notices. */

/** @typedef {Node | string | null | undefined | false} Part */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name @param {Record<string, any>} [properties] @param {Part[]} parts
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(name, properties = {}, ...parts) {
  const element = document.createElement(name)
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value)
    else if (key.includes('-') || key === 'role') element.setAttribute(key, String(value))
    else /** @type {any} */ (element)[key] = value
  }
  element.append(.../** @type {(Node | string)[]} */ (parts.filter((part) => part || part === '')))
  return element
}

/** @param {string} id @returns {any} */
export function byId(id) {
  const found = document.getElementById(id)
  if (!found) throw new Error(`the page has no #${id}`)
  return found
}

/** @param {unknown} error */
export function messageOf(error) {
  if (error instanceof TypeError && error.message.toLowerCase().includes('fetch'))
    return 'The server does not respond.'
  return error instanceof Error ? error.message : String(error)
}

/** Error messages at the top of the page by their cause: `calm` removes those of one cause.
 * @type {Map<string, HTMLElement>} */
const notices = new Map()

/** @param {unknown} error @param {string} cause the failed action; its later success calls `calm` */
export function complain(error, cause) {
  const text = messageOf(error)
  const known = notices.get(cause)
  if (known?.firstChild?.textContent === text) return
  const close = h(
    'button',
    { className: 'quiet', 'aria-label': 'close this message', onclick: () => calm(cause) },
    '×',
  )
  const notice = h('div', { className: 'notice' }, h('span', {}, text), close)
  if (known) known.replaceWith(notice)
  else byId('message').append(notice)
  notices.set(cause, notice)
}

/** @param {string} [cause] every cause when omitted */
export function calm(cause) {
  for (const [known, notice] of [...notices]) {
    if (cause !== undefined && known !== cause) continue
    notice.remove()
    notices.delete(known)
  }
}

/** @param {number} count */
export function formatCount(count) {
  return count.toLocaleString('en')
}
