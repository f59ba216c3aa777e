// @ts-check
/** What the dashboard asks of its server, with the token that this tab holds. */

/** @typedef {{key: string, kind: 'map' | 'text' | 'number' | 'bool', value?: unknown, cut?: boolean}} Child */
/** @typedef {{value?: unknown, kind: string, children?: Child[], more?: boolean}} Outline */

const TOKEN = 'elkyn-token'

/** The server's answer was an error; `details` is its JSON. */
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

/** The part of the URL before the page: a mounted server has one.
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

/** @param {string} path @param {{method?: string, body?: string | undefined, query?: Record<string, string | number> | undefined, signal?: AbortSignal}} [options] */
async function send(path, { method = 'GET', body, query, signal } = {}) {
  const answer = await fetch(address(path, query), {
    method,
    body: body ?? null,
    headers: session.token ? { authorization: `Bearer ${session.token}` } : {},
    signal: signal ?? null,
  })
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null))
  return answer
}

/** @param {string} path @param {Record<string, string | number>} [query] */
export async function read(path, query) {
  return (await send(path, { query })).json()
}

/** @param {string} path @param {string} method @param {string} [body] */
export async function write(path, method, body) {
  return (await send(path, { method, body })).json()
}

/** @param {string} path */
export async function text(path) {
  return (await send(path)).text()
}

/** @param {string[]} keys @param {string} after @returns {Promise<Outline>} */
export function outline(keys, after = '') {
  return read('/.settings/outline.json', { path: `/${keys.join('/')}`, after, limit: 100 })
}

/** Call `changed` with lists of changed paths until `signal` aborts; connects again by itself.
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
