import type { Metadata, Viewport } from 'next'
import type { ReactNode } from 'react'

import { Shell } from '@/components/shell/Shell'
import { THEME_SCRIPT } from '@/lib/theme'

import './globals.css'

export const metadata: Metadata = {
  title: { default: 'Sennit', template: '%s · Sennit' },
  description: 'Upload data, ask it questions in SQL, and watch every job live.',
}

export const viewport: Viewport = {
  themeColor: [
    { media: '(prefers-color-scheme: light)', color: '#f6f5f1' },
    { media: '(prefers-color-scheme: dark)', color: '#121311' },
  ],
}

export default function RootLayout({ children }: { children: ReactNode }) {
  return (
    // The theme script changes this element before React sees it.
    <html lang="en" suppressHydrationWarning>
      <head>
        <script dangerouslySetInnerHTML={{ __html: THEME_SCRIPT }} />
      </head>
      <body>
        <Shell>{children}</Shell>
      </body>
    </html>
  )
}
