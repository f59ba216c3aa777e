/** Typed arrays with one element for each group, which get longer as groups come. */

/** An array with room for `count` elements and more, beginning with those of another one. */
export function lengthened<A extends Float64Array | Int32Array | Uint8Array>(
  array: A,
  count: number,
  filler = 0,
): A {
  if (count <= array.length) return array
  const made = new (array.constructor as new (length: number) => A)(Math.max(64, 2 * count))
  made.fill(filler, array.length)
  made.set(array)
  return made
}
