/** Functions that generated kernels call, for what does not fit into one line of code. */

import { Unsupported } from '../errors.ts'
import { dayOf, daysText } from './calendar.ts'
import { lower, upper } from './caseMapping.ts'
import { readCast } from './casts.ts'
import { INT64_MAX, INT64_MIN } from './overflow.ts'
import { integerRange, isFloat, TICKS, typeText, ValueOutOfRange, type Type } from './types.ts'

/** Order of texts by code points, which is that of their UTF-8 bytes. */
export function compareText(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let at = 0; at < length; at += 1) {
    const x = a.charCodeAt(at)
    const y = b.charCodeAt(at)
    if (x === y) continue
    // Surrogates stand for code points above all others, and below U+E000 as units.
    const isHigh = x >= 0xd800 && x <= 0xdfff
    if (isHigh !== (y >= 0xd800 && y <= 0xdfff)) return isHigh ? 1 : -1
    return x - y
  }
  return a.length - b.length
}

/** Round half away from zero at `scale`, a power of ten, in binary64. */
export function roundFloat(value: number, scale: number, isFraction: boolean): number {
  const scaled = isFraction ? value * scale : value / scale
  let whole = Math.trunc(scaled)
  if (Math.abs(scaled - whole) >= 0.5) whole += Math.sign(scaled)
  const rounded = isFraction ? whole / scale : whole * scale
  return Number.isFinite(scaled) && Number.isFinite(rounded) ? rounded : value
}

// Texts, by code points

export function length(text: string): number {
  let count = 0
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at)
    if (unit >= 0xd800 && unit <= 0xdbff) at += 1
    count += 1
  }
  return count
}

export function left(text: string, count: number): string {
  const points = [...text]
  return points.slice(0, count < 0 ? Math.max(0, points.length + count) : count).join('')
}

export function right(text: string, count: number): string {
  const points = [...text]
  return points
    .slice(count < 0 ? Math.min(points.length, -count) : Math.max(0, points.length - count))
    .join('')
}

/** Code points from `start`, 1 is the first and -1 the last. */
export function substr(text: string, start: number, count: number): string {
  const points = [...text]
  const from = start > 0 ? start - 1 : points.length + start
  return points.slice(Math.max(0, from), Math.max(0, from + count)).join('')
}

export function strpos(text: string, part: string): number {
  const at = text.indexOf(part)
  return at < 0 ? 0 : length(text.slice(0, at)) + 1
}

export function reverse(text: string): string {
  return [...text].reverse().join('')
}

export function trimStart(text: string, chars: string): string {
  const points = [...text]
  let from = 0
  while (from < points.length && chars.includes(points[from] ?? '')) from += 1
  return points.slice(from).join('')
}

export function trimEnd(text: string, chars: string): string {
  const points = [...text]
  let end = points.length
  while (end > 0 && chars.includes(points[end - 1] ?? '')) end -= 1
  return points.slice(0, end).join('')
}

/** More units of text than a row may have of one that is repeated. */
const REPEATED_MAX = 1 << 24

export function repeat(text: string, count: number): string {
  if (text.length * count > REPEATED_MAX)
    throw new Unsupported('a text of more than 16 million units is not computed in JavaScript')
  return text.repeat(count)
}

/** Code points of a text, cut to `width` or with `fill` again and again in front or behind. */
export function pad(text: string, width: number, fill: string, isLeft: boolean): string {
  const points = [...text]
  if (points.length >= width) return points.slice(0, width).join('')
  const filling = [...fill]
  const missing = Array.from(
    { length: width - points.length },
    (_, at) => filling[at % filling.length] ?? '',
  ).join('')
  return isLeft ? missing + text : text + missing
}

/** The part of a number, from 1, or from the end by -1; empty where there is none. */
export function splitPart(text: string, separator: string, index: number): string {
  return text.split(separator).at(index > 0 ? index - 1 : index) ?? ''
}

/** The test of SQL's LIKE: `%` is any text, `_` one code point; there is no escape character. */
export function likeTest(pattern: string): (text: string) => boolean {
  const quoted = [...pattern].map((point) =>
    point === '%' ? '[^]*' : point === '_' ? '[^]' : point.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'),
  )
  const expression = new RegExp(`^${quoted.join('')}$`, 'u')
  return (text) => expression.test(text)
}

// Dates

export function floorDiv(ticks: number | bigint, divisor: number): number {
  if (typeof ticks === 'number') return Math.floor(ticks / divisor)
  const by = BigInt(divisor)
  return Number((ticks - (((ticks % by) + by) % by)) / by)
}

export function datePart(part: string, days: number): number {
  const { year, month, day } = dayOf(days)
  if (part === 'year') return year
  if (part === 'month') return month
  return part === 'day' ? day : Math.floor((month + 2) / 3)
}

export function clockPart(part: string, ticks: number | bigint, perSecond: number): number {
  const seconds = floorDiv(ticks, perSecond)
  const ofDay = ((seconds % 86_400) + 86_400) % 86_400
  if (part === 'hour') return Math.floor(ofDay / 3600)
  return part === 'minute' ? Math.floor(ofDay / 60) % 60 : ofDay % 60
}

/** Ticks of one unit as those of another; null if a coarser unit would lose some. */
export function rescaled(ticks: number | bigint, from: Type, to: Type): number | bigint | null {
  const [have, want] = [BigInt(TICKS[from.unit ?? 'us']), BigInt(TICKS[to.unit ?? 'us'])]
  const exact = BigInt(ticks) * want
  if (exact % have !== 0n) return null
  const value = exact / have
  if (value < INT64_MIN || value > INT64_MAX) return null
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

// Casts: null where the value does not fit

export function castFloatToInteger(value: number, to: Type): number | bigint | null {
  if (!Number.isInteger(value)) return null
  if (Number.isSafeInteger(value)) return fits(value, to) ? value + 0 : null
  const whole = BigInt(value)
  return fits(whole, to) ? whole : null
}

export function fits(value: number | bigint, to: Type): boolean {
  const [low, high] = integerRange(to)
  return value >= low && value <= high
}

export function castToFloat32(value: number): number | null {
  const narrow = Math.fround(value)
  return Number.isFinite(narrow) || !Number.isFinite(value) ? narrow : null
}

export function castToBool(value: number | bigint): boolean | null {
  const number = Number(value) // exact for 0 and 1
  return number === 0 ? false : number === 1 ? true : null
}

export function castText(value: boolean | number | bigint, from: Type): string {
  return from.name === 'Date' ? daysText(Number(value)) : String(value)
}

export function refuseCast(value: unknown, to: Type): never {
  const shown = typeof value === 'string' ? JSON.stringify(value.slice(0, 80)) : String(value)
  throw new ValueOutOfRange(`${shown} is not a ${typeText(to)}`, 'tryCast returns NULL')
}

export { refuseFormat } from './dateFormats.ts'
export * from './dateUnits.ts'
export { int64, overflow, uint64, WIDEN } from './overflow.ts'
export { isFloat, lower, readCast, upper }
