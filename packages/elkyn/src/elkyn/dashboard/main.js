// @ts-check
/** The shell: sign-in, namespaces, tabs, theme, and the feed of changes. */

import { ActivityView } from './activity.js'
import { follow, linkTo, read, Refused, session } from './api.js'
import { DataView } from './data.js'
import { byId, calm, complain, h } from './dom.js'
import { RulesView } from './rules.js'

const TABS = ['data', 'rules', 'activity']
const THEME = 'elkyn-theme'
const OWNER = 'owner'

/** The views of the chosen namespace.
 * @typedef {{feed: AbortController, data: DataView, rules: RulesView, activity: ActivityView}} Shown */
/** @type {Shown | null} */
let shown = null
let isEmulator = false

function theme() {
  const chosen = localStorage.getItem(THEME)
  if (chosen) document.documentElement.dataset.theme = chosen
  byId('theme').onclick = () => {
    const system = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'
    const now = document.documentElement.dataset.theme ?? system
    const next = now === 'dark' ? 'light' : 'dark'
    document.documentElement.dataset.theme = next
    localStorage.setItem(THEME, next)
  }
}

/** Show the tab and path of the address: `#data/users/ann`, `#rules`, `#activity`. */
function route() {
  if (!shown) return
  const [name = '', ...parts] = location.hash.slice(1).split('/')
  const tab = TABS.includes(name) ? name : 'data'
  for (const each of TABS) {
    byId(each).hidden = each !== tab
    byId(`tab-${each}`).setAttribute('aria-selected', String(each === tab))
    byId(`tab-${each}`).tabIndex = each === tab ? 0 : -1
  }
  calm()
  if (tab === 'data') shown.data.show(parts.filter(Boolean).map(decoded))
  if (tab === 'rules') shown.rules.show()
  if (tab === 'activity') shown.activity.show()
}

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** @param {string} tab */
function go(tab) {
  const link = tab === 'data' ? linkTo(shown?.data.keys ?? []) : `#${tab}`
  history.pushState(null, '', link) // setting the hash would remove the focus from the tab
  route()
}

/** @param {KeyboardEvent} event */
function moveBetweenTabs(event) {
  const step = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0
  const at = TABS.findIndex((each) => byId(`tab-${each}`) === event.target)
  const next = TABS[(at + step + TABS.length) % TABS.length]
  if (!step || !next) return
  byId(`tab-${next}`).focus()
  go(next)
}

/** @param {boolean} live */
function showLive(live) {
  byId('live').dataset.state = live ? 'live' : 'lost'
  byId('live').textContent = live ? 'live' : 'reconnecting'
}

function stop() {
  shown?.feed.abort()
  shown?.activity.stop()
  shown = null
}

function showSignIn() {
  stop()
  byId('sign-in').hidden = false
  byId('leave').hidden = true
  byId('namespaces').hidden = true
  document.querySelector('nav')?.toggleAttribute('hidden', true)
  byId('live').dataset.state = ''
  byId('live').textContent = 'signed out'
  for (const each of TABS) byId(each).hidden = true
  byId('token').focus()
}

async function begin() {
  const { signIn } = await read('/.dashboard/server.json')
  isEmulator = signIn === OWNER
  byId('emulator').hidden = !isEmulator
  if (isEmulator) session.enter(OWNER)
  else if (session.token === OWNER) session.leave() // the token of an emulator that had this address before
  await enter()
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
  byId('sign-in').hidden = true
  byId('leave').hidden = isEmulator || !session.token
  byId('namespaces').hidden = false
  document.querySelector('nav')?.toggleAttribute('hidden', false)
  start()
}

function start() {
  stop()
  const feed = new AbortController()
  const data = new DataView(byId('data'))
  shown = {
    feed,
    data,
    rules: new RulesView(byId('rules')),
    activity: new ActivityView(byId('activity')),
  }
  route()
  void follow((paths) => data.changed(paths), showLive, feed.signal)
}

/** @param {unknown} error */
function refused(error) {
  if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
    if (session.token) complain('This token is not valid for this server.', 'sign-in')
    session.leave()
    showSignIn()
  } else {
    complain(error, 'page')
  }
}

theme()
for (const each of TABS) byId(`tab-${each}`).onclick = () => go(each)
byId('tab-data').parentElement.onkeydown = moveBetweenTabs
addEventListener('hashchange', route)
addEventListener('elkyn-signed-out', () => {
  if (!shown) return // the sign-in itself failed: `refused` shows the message
  session.leave()
  showSignIn()
  complain('You are signed out: the token is no longer valid.', 'sign-in')
})
addEventListener('beforeunload', (event) => {
  if (shown?.rules.isChanged) event.preventDefault()
})
byId('namespace').onchange = (/** @type {any} */ event) => {
  if (shown?.rules.isChanged && !confirm('The rules have changes that are not saved. Drop them?')) {
    event.target.value = session.namespace
    return
  }
  session.namespace = event.target.value
  const url = new URL(location.href)
  url.searchParams.set('ns', session.namespace)
  if (url.hash.startsWith('#data')) url.hash = ''
  history.replaceState(null, '', url)
  start()
}
byId('token').oninput = () => calm('sign-in')
byId('sign-in').onsubmit = (/** @type {Event} */ event) => {
  event.preventDefault()
  session.enter(byId('token').value.trim())
  byId('token').value = ''
  calm()
  enter().catch(refused)
}
byId('leave').onclick = () => {
  session.leave()
  showSignIn()
}
begin().catch(refused)
