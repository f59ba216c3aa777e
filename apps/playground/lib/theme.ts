/** Light, dark, or as the system says. The inline script of the layout applies the choice before paint. */

import { Store } from './store'

export type Theme = 'light' | 'dark' | 'system'

export const THEMES: readonly Theme[] = ['light', 'dark', 'system']

const KEY = 'sennit.theme'

/** Runs before the first paint; kept as text because its hash is part of the content security policy. */
export const THEME_SCRIPT = `(function(){try{var t=localStorage.getItem('${KEY}');if(t==='light'||t==='dark')document.documentElement.dataset.theme=t}catch(e){}})()`

/** The choice as components watch it. */
export const theme = new Store<Theme>('system')

/** Read the choice that the inline script has applied. */
export function openTheme(): void {
  const chosen = document.documentElement.dataset.theme
  theme.set(chosen === 'light' || chosen === 'dark' ? chosen : 'system')
}

/** Apply a choice and keep it. */
export function chooseTheme(choice: Theme): void {
  theme.set(choice)
  if (choice === 'system') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = choice
  try {
    if (choice === 'system') localStorage.removeItem(KEY)
    else localStorage.setItem(KEY, choice)
  } catch {
    // Storage is refused: the choice then lasts as long as the page.
  }
}
