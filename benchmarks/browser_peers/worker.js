/** The kernels in a worker of a page: it fetches a file once, and computes when it is asked. */

import { kernels } from './engine.js'

const ready = kernels((module) => import(`/dist/${module}`))
let bytes = null

onmessage = async ({ data: { kind, path } }) => {
  const compute = await ready
  if (path) {
    bytes = new Uint8Array(await (await fetch(path)).arrayBuffer())
    postMessage(bytes.length)
  } else {
    postMessage(compute(kind, bytes))
  }
}
