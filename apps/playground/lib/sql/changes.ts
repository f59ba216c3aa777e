const CHANGES = /^(insert|update|delete|truncate|merge|create|drop|alter)\b/i
const BEGINNING = /^(\s|;|--[^\n]*(\n|$)|\/\*[^]*?\*\/)+/

/**
 * Whether a statement may change data, so that it must not run again, for example for an export.
 *
 * A query that begins with WITH and mentions such a verb counts too: that costs an export, the
 * opposite would change data twice.
 */
export function mayChangeData(sql: string): boolean {
  const text = sql.replace(BEGINNING, '')
  if (/^with\b/i.test(text)) return /\b(insert|update|delete|merge)\b/i.test(text)
  return CHANGES.test(text)
}
