import { Search } from 'lucide-react'

/** Narrows a table down to the rows with some words. */
export function SearchField({
  label,
  value,
  onChange,
}: {
  label: string
  value: string
  onChange: (text: string) => void
}) {
  return (
    <label className="relative block w-48 max-w-full">
      <span className="sr-only">{label}</span>
      <Search
        size={13}
        aria-hidden
        className="text-ink-3 pointer-events-none absolute top-1/2 left-2 -translate-y-1/2"
      />
      <input
        type="search"
        className="field h-7 w-full pl-7 text-xs"
        placeholder={label}
        value={value}
        onChange={(event) => onChange(event.target.value)}
        autoComplete="off"
        spellCheck={false}
      />
    </label>
  )
}
