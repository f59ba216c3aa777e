// @ts-check
/** The dashboard's requests to its server, with the token of this tab. */

/** @typedef {'map' | 'text' | 'number' | 'bool' | 'null'} Kind */
/** A node: scalars have a value (`cut`: its start), maps a count (`capped`: of some of them).
 * @typedef {{kind: Kind, value?: unknown, cut?: boolean, count?: number, capped?: boolean, list?: boolean}} Outlined */
/** @typedef {Outlined & {key: string, by?: Outlined}} Child */
/** @typedef {Outlined & {children?: Child[], more?: boolean, indexed?: boolean}} Outline */
/** @typedef {Outlined & {path: string}} Found */
/** @typedef {{found: Found[], searched: number, after?: string}} SearchAnswer */
/** @typedef {{line: number, column: number, text: string}} Problem */

export const PAGE = 100
export const PAGE_MAX = 1000
const EDITED_BYTES_MAX = 1024 * 1024 // typing in a larger text area is too slow

const TOKEN = 'elkyn-token'

/** An error response of the server; `details` is its JSON. */
export class Refused extends Error {
  /** @param {number} status @param {any} details */
  constructor(status, details) {
    super(details?.error ?? `the server answered ${status}`)
    this.status = status
    this.details = details
  }
}

export const session = {
  namespace: new URLSearchParams(location.search).get('ns') ?? '',
  get token() {
    return sessionStorage.getItem(TOKEN) ?? ''
  },
  /** @param {string} token */
  enter(token) {
    sessionStorage.setItem(TOKEN, token)
  },
  leave() {
    sessionStorage.removeItem(TOKEN)
  },
}

/** The URL of a path, below the prefix of a mounted server.
 * @param {string} path @param {Record<string, string | number>} [query] */
function address(path, query = {}) {
  const url = new URL(`.${path}`, new URL('.', location.href))
  if (session.namespace) url.searchParams.set('ns', session.namespace)
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, String(value))
  return url
}

/** @param {string[]} keys */
export function urlOf(keys) {
  return `/${keys.map(encodeURIComponent).join('/')}.json`
}

/** The link that opens a node in the dashboard. With a slash for the root too: `#data` would be
 * the element of that name, to which browsers scroll.
 * @param {string[]} keys */
export function linkTo(keys) {
  return `#data/${keys.map(encodeURIComponent).join('/')}`
}

/** @param {string} path @param {{method?: string, body?: string | undefined, query?: Record<string, string | number> | undefined, signal?: AbortSignal}} [options] */
async function send(path, { method = 'GET', body, query, signal } = {}) {
  const answer = await fetch(address(path, query), {
    method,
    body: body ?? null,
    headers: session.token ? { authorization: `Bearer ${session.token}` } : {},
    signal: signal ?? null,
  })
  if (answer.status === 401) dispatchEvent(new Event('elkyn-signed-out'))
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null))
  return answer
}

/** @param {string} path @param {Record<string, string | number>} [query] */
export async function read(path, query) {
  return (await send(path, { query })).json()
}

/** The value at a path as text to edit, with priorities.
 * @param {string[]} keys */
export async function readToEdit(keys) {
  const answer = await send(urlOf(keys), { query: { format: 'export' } })
  if (Number(answer.headers.get('content-length')) > EDITED_BYTES_MAX) {
    await answer.body?.cancel()
    throw new Error('This is too large to edit as one text: open a child, or use `elkyn export`.')
  }
  return JSON.stringify(await answer.json(), null, 2)
}

/** @param {string} path @param {string} method @param {string} [body] */
export async function write(path, method, body) {
  return (await send(path, { method, body })).json()
}

/** @param {string} path */
export async function text(path) {
  return (await send(path)).text()
}

/** @param {string[]} keys @param {Record<string, string | number>} [parameters] of a page or query
 * @returns {Promise<Outline>} */
export function outline(keys, parameters = {}) {
  const path = `/${keys.join('/')}`
  return read('/.settings/outline.json', { path, limit: PAGE, ...parameters })
}

/** @param {string[]} keys @param {string} text @param {string} after @returns {Promise<SearchAnswer>} */
export function search(keys, text, after) {
  return read('/.settings/search.json', { path: `/${keys.join('/')}`, text, after })
}

/** The problems that an error names, null for an error without problems.
 * @param {unknown} error @returns {Problem[] | null} */
export function problemsOf(error) {
  return error instanceof Refused ? (error.details?.problems ?? null) : null
}

/** Call `changed` with lists of changed paths until `signal` aborts; reconnects automatically.
 * @param {(paths: string[]) => void} changed @param {(live: boolean) => void} state @param {AbortSignal} signal */
export async function follow(changed, state, signal) {
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      const answer = await send('/.settings/changes', { signal })
      state(true)
      if (failures) changed(['/'])
      failures = 0
      for await (const line of lines(answer)) {
        if (line.startsWith('data:')) changed(JSON.parse(line.slice(5)))
      }
    } catch (error) {
      if (signal.aborted || (error instanceof Refused && error.status === 401)) return
    }
    state(false)
    await new Promise((resolve) => setTimeout(resolve, Math.min(1000 * 2 ** failures, 15000)))
  }
}

/** @param {Response} answer */
async function* lines(answer) {
  if (!answer.body) return
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const parts = (rest + value).split('\n')
    rest = parts.pop() ?? ''
    yield* parts
  }
}
