// Bundles the compute runtime of @sennit/elytra, as it is published, into out/runtime: the outer worker,
// the compute worker whose response alone may evaluate text, and the document of frames for functions.
//
// Not with the site's own bundler: that starts all workers through one bootstrap script, which then
// would have one policy for all.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const require = createRequire(import.meta.url)

/** The packages are published together; each file is one request. */
const NAMES = ['compute.js', 'outer.js']

export async function buildRuntime(tree, out) {
  const built = spawnSync('npm', ['run', '--silent', 'build', '--workspace', '@sennit/elytra'], {
    cwd: tree,
    stdio: 'inherit',
  })
  if (built.status !== 0) throw new Error('@sennit/elytra cannot be built')
  // The webpack and the terser that next carries, of which the former does not find the latter.
  const { webpack } = require('next/dist/compiled/webpack/bundle5.js')()
  const { minify } = require('next/dist/compiled/terser')
  const folder = path.join(out, 'runtime')
  const compiler = webpack({
    mode: 'production',
    target: 'webworker',
    context: path.join(tree, 'packages/elytra/js/dist/worker'),
    entry: { outer: './outerEntry.js' },
    devtool: false,
    performance: false,
    optimization: { splitChunks: false, minimize: false },
    output: { path: folder, filename: '[name].js', chunkFilename: '[name].js', publicPath: 'auto' },
  })
  const stats = await new Promise((resolve, reject) =>
    compiler.run((error, done) => (error ? reject(error) : resolve(done))),
  )
  if (stats.hasErrors() || stats.hasWarnings())
    throw new Error(stats.toString({ all: false, errors: true, warnings: true }))
  const names = readdirSync(folder).sort()
  if (names.join() !== NAMES.join())
    throw new Error(`the runtime has ${names.join(', ')}, not ${NAMES.join(', ')}`)
  for (const name of names) {
    const file = path.join(folder, name)
    const { code } = await minify(readFileSync(file, 'utf8'))
    writeFileSync(file, code)
  }
  const guest = path.join(tree, 'packages/elytra/js/dist/sandbox/guest.js')
  const { frame } = await import(pathToFileURL(guest).href)
  writeFileSync(path.join(folder, 'sandbox.html'), sandboxPage(`(${frame})()`))
}

/** The policy of the response forbids all requests; this one allows no script but the one in it. */
function sandboxPage(script) {
  const hash = createHash('sha256').update(script).digest('base64')
  const policy = `default-src 'none'; script-src 'sha256-${hash}'; worker-src blob:`
  return (
    `<!doctype html><title>functions</title>` +
    `<meta http-equiv="Content-Security-Policy" content="${policy}"><script>${script}</script>`
  )
}
