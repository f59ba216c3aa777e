// @ts-check
/** The shell: sign-in, namespaces, tabs, theme, and the feed of changes. */

import { showActivity } from './activity.js'
import { follow, read, Refused, session } from './api.js'
import { byId, calm, complain, h } from './dom.js'
import { showRules } from './rules.js'
import { DataView } from './tree.js'

const TABS = ['data', 'rules', 'activity']
const THEME = 'elkyn-theme'

/** @type {AbortController | null} */
let open = null
/** @type {DataView | null} */
let data = null

function theme() {
  const kept = localStorage.getItem(THEME)
  if (kept) document.documentElement.dataset.theme = kept
  byId('theme').onclick = () => {
    const system = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'
    const now = document.documentElement.dataset.theme ?? system
    const next = now === 'dark' ? 'light' : 'dark'
    document.documentElement.dataset.theme = next
    localStorage.setItem(THEME, next)
  }
}

/** @param {string} name */
function choose(name) {
  const tab = TABS.includes(name) ? name : 'data'
  for (const each of TABS) {
    byId(each).hidden = each !== tab
    byId(`tab-${each}`).setAttribute('aria-selected', String(each === tab))
  }
  calm()
  if (tab === 'rules') showRules(byId('rules'))
  if (tab === 'activity') showActivity(byId('activity'))
}

/** @param {boolean} live */
function showLive(live) {
  byId('live').dataset.state = live ? 'live' : 'lost'
  byId('live').textContent = live ? 'live' : 'connecting again'
}

function showDoor() {
  open?.abort()
  byId('door').hidden = false
  byId('leave').hidden = true
  byId('live').textContent = 'signed out'
  for (const each of TABS) byId(each).hidden = true
  byId('token').focus()
}

async function enter() {
  const names = await read('/.settings/namespaces.json')
  if (!session.namespace) session.namespace = names.default
  const all = new Set([...names.namespaces, session.namespace])
  byId('namespace').replaceChildren(
    ...[...all].map((name) =>
      h('option', { value: name, selected: name === session.namespace }, name),
    ),
  )
  byId('door').hidden = true
  byId('leave').hidden = !session.token
  start()
}

function start() {
  open?.abort()
  open = new AbortController()
  data = new DataView(byId('data'))
  choose(location.hash.slice(1))
  void data.load()
  void follow((paths) => data?.changed(paths), showLive, open.signal)
}

/** @param {unknown} error */
function refused(error) {
  if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
    if (session.token) complain('This token does not let you in.')
    session.leave()
    showDoor()
  } else {
    complain(error)
  }
}

theme()
for (const each of TABS) byId(`tab-${each}`).onclick = () => (location.hash = each)
addEventListener('hashchange', () => byId('door').hidden && choose(location.hash.slice(1)))
byId('namespace').onchange = (/** @type {any} */ event) => {
  session.namespace = event.target.value
  const url = new URL(location.href)
  url.searchParams.set('ns', session.namespace)
  history.replaceState(null, '', url)
  start()
}
byId('door').onsubmit = (/** @type {Event} */ event) => {
  event.preventDefault()
  session.enter(byId('token').value.trim())
  byId('token').value = ''
  calm()
  enter().catch(refused)
}
byId('leave').onclick = () => {
  session.leave()
  showDoor()
}
enter().catch(refused)
