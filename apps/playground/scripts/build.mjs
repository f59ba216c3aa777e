// Exports the site to out/. Run by `npm run build`.

import { spawnSync } from 'node:child_process'
import { readdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

import { buildRuntime } from './runtime.mjs'

const app = path.join(path.dirname(fileURLToPath(import.meta.url)), '..')
const out = path.join(app, 'out')

// Remove the previous export: after a failed build it must not count as current.
rmSync(out, { recursive: true, force: true })
const next = spawnSync('next', ['build'], {
  cwd: app,
  stdio: 'inherit',
  env: { ...process.env, NEXT_TELEMETRY_DISABLED: '1' },
})
if (next.status !== 0) process.exit(next.status ?? 1)

// The bundler also publishes the workers' sources, which are not used.
const media = path.join(out, '_next', 'static', 'media')
for (const name of readdirSync(media, { withFileTypes: true })) {
  if (/\.[jt]s$/.test(name.name)) rmSync(path.join(media, name.name))
}
// Written by next on every start; types.d.ts says the same and stays the same.
rmSync(path.join(app, 'next-env.d.ts'), { force: true })

await buildRuntime(path.join(app, '..', '..'), out)
