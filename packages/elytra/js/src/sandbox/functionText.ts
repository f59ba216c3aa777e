/** Functions as text: what a sandbox and a plan have of one. */

export interface FunctionText {
  readonly text: string
  readonly scope: object
}

/** An expression whose value is the function, with the values of its variables. */
export function functionOf({ text, scope }: FunctionText): string {
  const names = Object.keys(scope).join(', ')
  return `((scope) => { const { ${names} } = scope; return (${text}\n) })(${spelled(scope)})`
}

/** A value as source text; JSON has no bigints, NaN and infinities. */
export function spelled(value: unknown): string {
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value)
  if (Array.isArray(value)) return `[${value.map(spelled).join(', ')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value ?? null)
  if (value instanceof Uint8Array) return `new Uint8Array([${value.join()}])`
  if (value instanceof Date) return `new Date(${value.getTime()})`
  const members = Object.entries(value).map(
    ([k, each]) => `[${JSON.stringify(k)}]: ${spelled(each)}`,
  )
  return `{${members.join(', ')}}`
}
