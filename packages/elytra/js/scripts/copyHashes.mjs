/**
 * Copies the modules of `@noble/hashes` that `dist/uploads/sha256.js` imports into `dist/noble`.
 *
 * The upload worker must load without a bundler, and import maps do not apply to workers, so that
 * `dist` may import relative paths only.
 */

import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const SPECIFIER = '@noble/hashes/sha2.js'
const dist = fileURLToPath(new URL('../dist', import.meta.url))
const entry = fileURLToPath(import.meta.resolve(SPECIFIER))
const copied = new Set()

function copy(name) {
  if (copied.has(name)) return
  copied.add(name)
  const code = readFileSync(join(dirname(entry), name), 'utf8')
  for (const [, from] of code.matchAll(
    /^(?:import|export)\s(?:[\w\s{},*]*\sfrom\s*)?["'](.+)["']/gm,
  )) {
    if (!from.startsWith('./')) throw new Error(`${name} imports ${from}, which is not copied`)
    copy(from.slice(2))
  }
  writeFileSync(join(dist, 'noble', name), code.replace(/^\/\/# sourceMappingURL.*\n?/m, ''))
}

mkdirSync(join(dist, 'noble'), { recursive: true })
copy('sha2.js')
copyFileSync(join(dirname(entry), 'LICENSE'), join(dist, 'noble/LICENSE'))

const hash = join(dist, 'uploads/sha256.js')
const code = readFileSync(hash, 'utf8')
if (!code.includes(SPECIFIER))
  throw new Error(`dist/uploads/sha256.js does not import ${SPECIFIER}`)
writeFileSync(hash, code.replace(SPECIFIER, '../noble/sha2.js'))
