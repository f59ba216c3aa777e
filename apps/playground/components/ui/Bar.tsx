/** A progress bar; without a fraction it only shows activity. The caller renders its text. */
export function Progress({
  fraction,
  label,
  active = true,
  tone = 'accent',
}: {
  fraction: number | null
  label: string
  active?: boolean
  tone?: 'accent' | 'bad' | 'quiet'
}) {
  const width = fraction === null ? 100 : Math.max(0, Math.min(1, fraction)) * 100
  const still = { accent: 'bg-accent', bad: 'bg-bad', quiet: 'bg-line-strong' }[tone]
  return (
    <div
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      {...(fraction === null ? {} : { 'aria-valuenow': Math.floor(width) })}
      className="bg-sunken h-1.5 w-full overflow-hidden rounded-full"
    >
      <div
        className={`h-full rounded-full transition-[width] duration-200 ${active ? 'rope' : still} ${fraction === null ? 'opacity-45' : ''}`}
        style={{ width: `${width}%` }}
      />
    </div>
  )
}

/** A quantity and its limit, as a bar and as text. */
export function Meter({
  value,
  max,
  label,
  text,
}: {
  value: number
  max: number
  label: string
  text: string
}) {
  const share = max > 0 ? Math.min(1, value / max) : 0
  const tone = share > 0.92 ? 'bg-bad' : share > 0.75 ? 'bg-ochre' : 'bg-teal'
  return (
    <div
      role="meter"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={max}
      aria-valuenow={Math.min(value, max)}
      aria-valuetext={text}
      className="bg-sunken h-1.5 w-full overflow-hidden rounded-full"
    >
      <div
        className={`h-full rounded-full ${tone} transition-[width] duration-300`}
        style={{ width: `${Math.max(share * 100, value > 0 ? 1 : 0)}%` }}
      />
    </div>
  )
}
