import path from 'node:path'

import type { NextConfig } from 'next'
import { PHASE_DEVELOPMENT_SERVER } from 'next/constants'

const shared: NextConfig = {
  trailingSlash: true,
  reactStrictMode: true,
  poweredByHeader: false,
  // Types are checked by `npm run typecheck`, at every commit; a build took 1.7 times as long with that.
  typescript: { ignoreBuildErrors: true },
  turbopack: { root: path.join(__dirname, '..', '..') },
}

/** The node that `npm run dev` speaks to. */
const gateway = process.env.SENNIT_URL ?? 'http://127.0.0.1:8600'

const development: NextConfig = {
  ...shared,
  devIndicators: false,
  // A proxied stream must not wait for a compressor's buffer to fill.
  compress: false,
  // The API's paths have no trailing slash, and a redirect would lose a request's body.
  skipTrailingSlashRedirect: true,
  rewrites: async () =>
    [
      '/api/:path*',
      '/files/:path*',
      '/healthz',
      '/readyz',
      '/docs',
      '/runtime/:path*',
      '/:path(.+\\.json)',
    ].map((source) => ({ source, destination: gateway + source.replace(/\(.*\)/, '') })),
  headers: async () => [
    {
      source: '/:path*',
      headers: [
        { key: 'Cross-Origin-Opener-Policy', value: 'same-origin' },
        { key: 'Cross-Origin-Embedder-Policy', value: 'require-corp' },
      ],
    },
  ],
}

export default function config(phase: string): NextConfig {
  return phase === PHASE_DEVELOPMENT_SERVER ? development : { ...shared, output: 'export' }
}
