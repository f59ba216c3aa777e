// @ts-check
/** Elements from a name, properties and children. Text is always text, never markup. */

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
export function complain(error) {
  const box = byId('message')
  box.textContent = error instanceof Error ? error.message : String(error)
  box.hidden = false
}

export function calm() {
  byId('message').hidden = true
}
