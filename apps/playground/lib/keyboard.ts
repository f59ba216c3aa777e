'use client'

/** Keys that work on every page, and the list the help shows. */

import { useEffect } from 'react'

export const PAGES = [
  { href: '/', label: 'Home', key: 'h' },
  { href: '/data/', label: 'Data', key: 'd' },
  { href: '/sql/', label: 'SQL', key: 's' },
  { href: '/jobs/', label: 'Jobs', key: 'j' },
  { href: '/compute/', label: 'Compute', key: 'c' },
  { href: '/storage/', label: 'Storage', key: 't' },
  { href: '/network/', label: 'Network', key: 'n' },
] as const

/** Whether this is a Mac, where the modifier is Command. */
export function isMac(): boolean {
  return typeof navigator !== 'undefined' && /Mac|iPhone|iPad/.test(navigator.platform)
}

/** The modifier's name on this machine. */
export function modName(): string {
  return isMac() ? '⌘' : 'Ctrl'
}

/** Whether a key press is meant for a field, an editor or a grid and not for the page. */
function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false
  return target.isContentEditable || ['INPUT', 'TEXTAREA', 'SELECT'].includes(target.tagName)
}

const SEQUENCE_MS = 1_200

/** `g` then a letter goes to a page, `?` asks for help. */
export function usePageKeys(go: (href: string) => void, help: () => void): void {
  useEffect(() => {
    let armedUntil = 0
    const press = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return
      if (document.querySelector('dialog[open]')) return
      const page = PAGES.find(({ key }) => key === event.key)
      if (page && performance.now() < armedUntil) {
        event.preventDefault()
        go(page.href)
      }
      armedUntil = event.key === 'g' ? performance.now() + SEQUENCE_MS : 0
      if (event.key === '?') help()
    }
    window.addEventListener('keydown', press)
    return () => window.removeEventListener('keydown', press)
  }, [go, help])
}
