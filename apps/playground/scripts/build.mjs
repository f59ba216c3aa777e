// Exports the site to out/. Run by `npm run build`.

import { spawnSync } from 'node:child_process'
import { readdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const app = path.join(path.dirname(fileURLToPath(import.meta.url)), '..')
const out = path.join(app, 'out')

// A failed export leaves the last one in place, which must not pass for the new one.
rmSync(out, { recursive: true, force: true })
const next = spawnSync('next', ['build'], {
  cwd: app,
  stdio: 'inherit',
  env: { ...process.env, NEXT_TELEMETRY_DISABLED: '1' },
})
if (next.status !== 0) process.exit(next.status ?? 1)

// The bundler publishes the sources of workers beside their bundles; nothing loads them.
const media = path.join(out, '_next', 'static', 'media')
for (const name of readdirSync(media, { withFileTypes: true })) {
  if (/\.[jt]s$/.test(name.name)) rmSync(path.join(media, name.name))
}
// Written by next on every start; types.d.ts says the same and stays the same.
rmSync(path.join(app, 'next-env.d.ts'), { force: true })
