/**
 * Functions that are made of text: kernels and readers of CSV.
 *
 * The text consists of this engine's own words and of numbers; names, texts and other values of a
 * plan are passed to the function as arguments.
 */

/** Equal texts are compiled once: an optimized function serves the next task with the same plan. */
const COMPILED_MAX = 256
const compiled = new Map<string, unknown>()

/**
 * The function that a text returns.
 *
 * @param R the functions that it calls.
 */
export function generated<F>(code: string, R: object): F {
  const found = compiled.get(code)
  if (found) return found as F
  const made = (new Function('R', `'use strict'\n${code}`) as (helpers: object) => F)(R)
  if (compiled.size >= COMPILED_MAX) compiled.clear()
  compiled.set(code, made)
  return made
}
