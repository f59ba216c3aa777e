'use client'

import { Monitor, Moon, Sun } from 'lucide-react'

import { useStore } from '@/lib/hooks'
import { chooseTheme, theme, THEMES, type Theme } from '@/lib/theme'

const LOOKS: Record<Theme, { label: string; Icon: typeof Sun }> = {
  light: { label: 'Light', Icon: Sun },
  dark: { label: 'Dark', Icon: Moon },
  system: { label: 'As the system', Icon: Monitor },
}

/** Three looks in one control. */
export function ThemeChoice() {
  const chosen = useStore(theme)
  return (
    <div
      role="radiogroup"
      aria-label="Theme"
      className="border-line bg-sunken flex rounded-md border p-0.5 max-sm:hidden"
    >
      {THEMES.map((choice) => {
        const { label, Icon } = LOOKS[choice]
        const active = chosen === choice
        return (
          <button
            key={choice}
            type="button"
            role="radio"
            aria-checked={active}
            aria-label={label}
            title={label}
            onClick={() => chooseTheme(choice)}
            className={`grid size-6 place-items-center rounded-sm ${active ? 'bg-surface text-ink shadow-(--shadow)' : 'text-ink-3 hover:text-ink'}`}
          >
            <Icon size={14} aria-hidden />
          </button>
        )
      })}
    </div>
  )
}
