/** Cutting a file into parts; index i covers bytes [i * partBytes, (i + 1) * partBytes). */

/** One part of a file. */
export interface Part {
  index: number
  start: number
  end: number
}

/** Every part of a file of `size` bytes; an empty file has none. */
export function cutParts(size: number, partBytes: number): Part[] {
  if (!Number.isSafeInteger(size) || size < 0)
    throw new RangeError(`a file cannot have ${size} bytes`)
  if (!Number.isSafeInteger(partBytes) || partBytes < 1)
    throw new RangeError(`a part cannot have ${partBytes} bytes`)
  const parts: Part[] = []
  for (let start = 0, index = 0; start < size; start += partBytes, index += 1) {
    parts.push({ index, start, end: Math.min(start + partBytes, size) })
  }
  return parts
}

/** The parts the node does not have yet, in order. */
export function missingParts(parts: readonly Part[], have: Iterable<number>): Part[] {
  const known = new Set(have)
  return parts.filter((part) => !known.has(part.index))
}

/** Bytes of a part. */
export function partLength(part: Part): number {
  return part.end - part.start
}
