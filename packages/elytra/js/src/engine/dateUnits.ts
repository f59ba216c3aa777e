/**
 * Truncation, differences and sums of dates and timestamps, in UTC.
 *
 * Ticks are doubles, or bigints in a wide kernel; days, and ticks within a day, are always doubles.
 */

import { checkedDays, dayOf, daysOf } from './calendar.ts'
import { overflow, WIDEN } from './overflow.ts'
import { ValueOutOfRange } from './types.ts'

const DAY_SECONDS = 86_400
const MONTHS: Readonly<Record<string, number>> = { year: 12, quarter: 3, month: 1 }
const DAYS: Readonly<Record<string, number>> = { week: 7, day: 1 }
const SECONDS: Readonly<Record<string, number>> = { hour: 3600, minute: 60, second: 1 }
const PARTS: Readonly<Record<string, number>> = { millisecond: 1e3, microsecond: 1e6 }
/** Units of a calendar, and those that a Date does not have. */
export const DAY_UNITS: readonly string[] = [...Object.keys(MONTHS), ...Object.keys(DAYS)]
export const CLOCK_UNITS: readonly string[] = [...Object.keys(SECONDS), ...Object.keys(PARTS)]
/** Days from the Monday before 1970-01-01, which was a Thursday. */
const MONDAY = 3

type Ticks = number | bigint

/** Whole days, rounded down. */
function wholeDays(ticks: Ticks, steps: number): number {
  const perDay = DAY_SECONDS * steps
  if (typeof ticks === 'number') return Math.floor(ticks / perDay)
  const by = BigInt(perDay)
  return Number((ticks - (((ticks % by) + by) % by)) / by)
}

function withinDay(ticks: Ticks, days: number, steps: number): number {
  // Ticks of a day are a multiple of 128, so that those of all days are exact.
  if (typeof ticks === 'number') return ticks - days * DAY_SECONDS * steps
  return Number(ticks - BigInt(days) * BigInt(DAY_SECONDS * steps))
}

/** A whole number that is exact, as the kernel has it: `like` is a number of it. */
function exact(value: number, like: Ticks): Ticks {
  if (typeof like === 'bigint') return BigInt(value)
  if (Math.abs(value) > Number.MAX_SAFE_INTEGER) throw WIDEN
  return value + 0
}

function checked(value: bigint): bigint {
  return BigInt.asIntN(64, value) === value ? value : overflow()
}

/** The days whose ticks 64 bits hold, less one; exact for 86,400 ticks a day and more. */
function dayLimit(perDay: number): number {
  return Math.floor(2 ** 63 / perDay) - 1
}

/** Days and the ticks within the day as ticks like others. */
function joined(days: number, rest: number, steps: number, like: Ticks): Ticks {
  const perDay = DAY_SECONDS * steps
  if (Math.abs(days) > dayLimit(perDay)) throw new ValueOutOfRange('no Timestamp is so far away')
  if (typeof like === 'bigint') return BigInt(days) * BigInt(perDay) + BigInt(rest)
  return exact(days * perDay + rest, like)
}

function asDate(days: number): number {
  if (Math.abs(days) > 2 ** 31 - 1) throw new ValueOutOfRange('no Date is so far away')
  return days + 0
}

// Truncation

function truncatedDays(unit: string, days: number): number {
  const months = MONTHS[unit]
  if (months === undefined)
    return unit === 'week' ? Math.floor((days + MONDAY) / 7) * 7 - MONDAY : days
  const { year, month } = dayOf(days)
  return daysOf({ year, month: Math.floor((month - 1) / months) * months + 1, day: 1 })
}

/** Ticks of a unit of the clock; at most 1 where it is the finest that there is, or finer. */
function unitTicks(unit: string, steps: number): number {
  const part = PARTS[unit]
  return part === undefined ? (SECONDS[unit] ?? 0) * steps : Math.floor(steps / part)
}

export function truncDate(unit: string, days: number): number {
  return asDate(truncatedDays(unit, days))
}

export function truncTime(unit: string, ticks: Ticks, steps: number): Ticks {
  const days = wholeDays(ticks, steps)
  if (DAY_UNITS.includes(unit)) return joined(truncatedDays(unit, days), 0, steps, ticks)
  const size = unitTicks(unit, steps)
  if (size <= 1) return ticks
  const rest = withinDay(ticks, days, steps)
  return joined(days, Math.floor(rest / size) * size, steps, ticks)
}

// Differences

/** How many units begin between 1970, or year 0, and a value. */
function boundary(unit: string, ticks: Ticks, steps: number): Ticks {
  const days = wholeDays(ticks, steps)
  const months = MONTHS[unit]
  if (months !== undefined) {
    const { year, month } = dayOf(days)
    return exact(Math.floor((year * 12 + month - 1) / months), ticks)
  }
  if (unit in DAYS) return exact(unit === 'week' ? Math.floor((days + MONDAY) / 7) : days, ticks)
  const part = PARTS[unit] ?? 1
  const perDay = (DAY_SECONDS * part) / (SECONDS[unit] ?? 1)
  if (Math.abs(days) > dayLimit(perDay)) throw new ValueOutOfRange('too many units for 64 bits')
  const rest = withinDay(ticks, days, steps)
  const within = steps < part ? rest * (part / steps) : Math.floor(rest / unitTicks(unit, steps))
  if (typeof ticks === 'bigint') return BigInt(days) * BigInt(perDay) + BigInt(within)
  return exact(days * perDay + within, ticks)
}

/** The boundaries of a unit between two values; of dates there are `86_400 / steps` ticks a day. */
export function diffTimes(unit: string, start: Ticks, end: Ticks, steps: number): Ticks {
  const [first, last] = [boundary(unit, start, steps), boundary(unit, end, steps)]
  if (typeof first === 'bigint' && typeof last === 'bigint') return checked(last - first)
  return exact(Number(last) - Number(first), Number(last))
}

export function diffDates(unit: string, start: number, end: number): number {
  return Number(diffTimes(unit, start * DAY_SECONDS, end * DAY_SECONDS, 1))
}

// Sums

/** More units than are added. */
const COUNT_MAX = 2 ** 53

function movedDays(unit: string, days: number, count: number): number {
  if (Math.abs(count) > COUNT_MAX) throw new ValueOutOfRange('an interval of more than 2^53 units')
  const months = MONTHS[unit]
  if (months === undefined) return days + count * (DAYS[unit] ?? 0)
  const { year, month, day } = dayOf(days)
  const index = year * 12 + month - 1 + count * months
  if (Math.abs(index) > 2 ** 40) throw new ValueOutOfRange('a year far beyond the calendar')
  const [toYear, toMonth] = [Math.floor(index / 12), (((index % 12) + 12) % 12) + 1]
  // A day that the month does not have becomes its last one.
  for (let last = day; ; last -= 1) {
    const found = checkedDays(toYear, toMonth, last)
    if (found !== null) return found
  }
}

export function addToDate(unit: string, count: Ticks, days: number): number {
  return asDate(movedDays(unit, days, Number(count)))
}

export function addToTime(unit: string, count: Ticks, ticks: Ticks, steps: number): Ticks {
  if (DAY_UNITS.includes(unit)) {
    const days = wholeDays(ticks, steps)
    const rest = withinDay(ticks, days, steps)
    return joined(movedDays(unit, days, Number(count)), rest, steps, ticks)
  }
  const size = unitTicks(unit, steps)
  if (typeof ticks === 'number' && typeof count === 'number') {
    const added = count * size
    if (Math.abs(added) > Number.MAX_SAFE_INTEGER) throw WIDEN
    return exact(ticks + added, ticks)
  }
  if (count > COUNT_MAX || count < -COUNT_MAX)
    throw new ValueOutOfRange('an interval of more than 2^53 units')
  return checked(BigInt(ticks) + checked(BigInt(count) * BigInt(size)))
}

// Other parts

export function makeDate(year: Ticks, month: Ticks, day: Ticks): number {
  const days =
    year >= 1 && year <= 9999 ? checkedDays(Number(year), Number(month), Number(day)) : null
  if (days === null) throw new ValueOutOfRange(`there is no day ${year}-${month}-${day}`)
  return days
}

export function dayPart(part: string, days: number): number {
  if (part === 'dow') return (((days + 4) % 7) + 7) % 7
  if (part === 'isodow') return ((((days + MONDAY) % 7) + 7) % 7) + 1
  if (part === 'doy') return dayOfYear(days)
  // The ISO week is that of its Thursday.
  return Math.floor((dayOfYear(truncatedDays('week', days) + 3) + 6) / 7)
}

function dayOfYear(days: number): number {
  return days - daysOf({ year: dayOf(days).year, month: 1, day: 1 }) + 1
}

/** Milliseconds since 1970, rounded down. */
export function epochMillis(ticks: Ticks, steps: number): Ticks {
  if (typeof ticks === 'number')
    return exact(steps >= 1e3 ? Math.floor(ticks / (steps / 1e3)) : ticks * (1e3 / steps), ticks)
  if (steps < 1e3) return checked(ticks * BigInt(1e3 / steps))
  const by = BigInt(steps / 1e3)
  return (ticks - (((ticks % by) + by) % by)) / by
}

/** A value as text by a format that `formatParts` has read. */
export function formatted(parts: readonly string[], ticks: Ticks, steps: number): string {
  const days = wholeDays(ticks, steps)
  const rest = withinDay(ticks, days, steps)
  const { year, month, day } = dayOf(days)
  const second = Math.floor(rest / steps)
  const texts: Readonly<Record<string, () => string>> = {
    '%Y': () => digits(year, 4),
    '%y': () => digits(((year % 100) + 100) % 100, 2),
    '%m': () => digits(month, 2),
    '%d': () => digits(day, 2),
    '%H': () => digits(Math.floor(second / 3600), 2),
    '%M': () => digits(Math.floor(second / 60) % 60, 2),
    '%S': () => digits(second % 60, 2),
    '%f': () => digits(Math.floor(((rest % steps) * 1e6) / steps), 6),
    '%j': () => digits(dayOfYear(days), 3),
    '%%': () => '%',
  }
  return parts.map((part) => (Object.hasOwn(texts, part) ? texts[part]?.() : part)).join('')
}

function digits(value: number, count: number): string {
  return String(value).padStart(count, '0')
}
