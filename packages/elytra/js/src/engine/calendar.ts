/** Days and timestamps in UTC, in the proleptic Gregorian calendar; no zones, no locales. */

import { TICKS, type Type } from './types.ts'

const DAY_SECONDS = 86_400

/** A day of the calendar. */
export interface Day {
  year: number
  month: number
  day: number
}

/** The day that many days after 1970-01-01, by Hinnant's `civil_from_days`. */
export function dayOf(days: number): Day {
  const shifted = days + 719_468
  const era = Math.floor(shifted / 146_097)
  const ofEra = shifted - era * 146_097
  const yearOfEra = Math.floor(
    (ofEra - Math.floor(ofEra / 1460) + Math.floor(ofEra / 36_524) - Math.floor(ofEra / 146_096)) /
      365,
  )
  const ofYear = ofEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const shiftedMonth = Math.floor((5 * ofYear + 2) / 153)
  const month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
  const day = ofYear - Math.floor((153 * shiftedMonth + 2) / 5) + 1
  return { year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day }
}

/** Days from 1970-01-01 to a day, by Hinnant's `days_from_civil`. */
export function daysOf({ year, month, day }: Day): number {
  const shifted = month <= 2 ? year - 1 : year
  const era = Math.floor(shifted / 400)
  const yearOfEra = shifted - era * 400
  const ofYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1
  const ofEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + ofYear
  return era * 146_097 + ofEra - 719_468
}

const MONTH_DAYS = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

/** Days from 1970-01-01 to a day, null if there is no such day. */
export function checkedDays(year: number, month: number, day: number): number | null {
  if (day < 1 || day > (MONTH_DAYS[month - 1] ?? 0)) return null
  const isLeap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  if (month === 2 && day === 29 && !isLeap) return null
  return daysOf({ year, month, day })
}

/** Days of a text `2013-01-31`, null if there is no such day. */
export function parseDay(text: string): number | null {
  const parts = /^(\d{4})-(\d{2})-(\d{2})$/.exec(text)
  return parts && checkedDays(Number(parts[1]), Number(parts[2]), Number(parts[3]))
}

/** Ticks of a text in ISO 8601, null if it is none, or if the type has no room for its fraction. */
export function parseTimestamp(text: string, type: Type): number | bigint | null {
  const parts =
    /^(\d{4}-\d{2}-\d{2})(?:[ T](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?)?(Z|[+-]\d{2}:?\d{2})?$/.exec(
      text,
    )
  if (!parts) return null
  const [, date = '', hour = '0', minute = '0', second = '0', fraction = '', offset] = parts
  const days = parseDay(date)
  const clock = [Number(hour), Number(minute), Number(second)]
  const [h = 0, m = 0, s = 0] = clock
  if (days === null || h > 23 || m > 59 || s > 59) return null
  if (offset !== undefined && type.zone === undefined) return null
  const seconds = days * DAY_SECONDS + h * 3600 + m * 60 + s - offsetSeconds(offset ?? 'Z')
  const micros = Number(fraction.padEnd(6, '0'))
  const ticks = TICKS[type.unit ?? 'us']
  if ((micros * Math.min(ticks, 1e6)) % 1e6 !== 0) return null
  const whole = BigInt(seconds) * BigInt(ticks) + (BigInt(micros) * BigInt(ticks)) / 1_000_000n
  const number = Number(whole)
  return Number.isSafeInteger(number) ? number : whole
}

function offsetSeconds(offset: string): number {
  if (offset === 'Z') return 0
  const digits = offset.slice(1).replace(':', '')
  const seconds = Number(digits.slice(0, 2)) * 3600 + Number(digits.slice(2)) * 60
  return offset.startsWith('-') ? -seconds : seconds
}

/** A day as text. */
export function daysText(days: number): string {
  const { year, month, day } = dayOf(days)
  return `${padded(year, 4)}-${padded(month, 2)}-${padded(day, 2)}`
}

/** A timestamp as text, with all digits of its unit; a Z if it has a zone. */
export function timestampText(ticks: bigint, type: Type): string {
  const perSecond = BigInt(TICKS[type.unit ?? 'us'])
  const fraction = ((ticks % perSecond) + perSecond) % perSecond
  const seconds = Number((ticks - fraction) / perSecond)
  const days = Math.floor(seconds / DAY_SECONDS)
  const rest = seconds - days * DAY_SECONDS
  const clock = [Math.floor(rest / 3600), Math.floor(rest / 60) % 60, rest % 60]
  const digits =
    perSecond === 1n ? '' : `.${String(fraction).padStart(String(perSecond).length - 1, '0')}`
  return `${daysText(days)}T${clock.map((part) => padded(part, 2)).join(':')}${digits}${type.zone === undefined ? '' : 'Z'}`
}

function padded(number: number, digits: number): string {
  return String(number).padStart(digits, '0')
}
