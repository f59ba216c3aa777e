/** Checks of option objects: unknown names are refused, so that no option is ignored silently. */

/** Throw TypeError for an option that `what` does not have. */
export function requireKnownOptions(what: string, options: object, known: readonly string[]): void {
  const unknown = Object.keys(options).filter((name) => !known.includes(name))
  if (unknown.length > 0)
    throw new TypeError(`${what} has no option ${unknown.join(', ')}; it has ${known.join(', ')}`)
}

/** Return `options` with aliases renamed; TypeError when an option has both of its names. */
export function renameOptions<Options extends object>(
  options: Options,
  names: Readonly<Record<string, string>>,
): Options {
  const renamed: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(options)) {
    const own = names[name] ?? name
    if (own in renamed) throw new TypeError(`option ${own} was passed twice, under two names`)
    renamed[own] = value
  }
  return renamed as Options
}
