/** Code of functions of dates and timestamps. */

import { formatParts, timeReader } from './dateFormats.ts'
import type { Simple } from './emit.ts'
import { TICKS, type Type } from './types.ts'

/** Ticks of a second. */
function ticksOf(type: Type | undefined): number {
  return TICKS[type?.unit ?? 'us']
}

/** The days of a value of either type. */
function daysCode(type: Type | undefined, value: string): string {
  return type?.name === 'Timestamp' ? `R.floorDiv(${value}, ${86_400 * ticksOf(type)})` : value
}

function part(method: string, name: string): Simple {
  return (emitter, node, [a = '']) => {
    const text = `R.${method}('${name}', ${daysCode(node.args[0]?.type, a)})`
    return { text: emitter.isWide ? `BigInt(${text})` : text }
  }
}

function clockPart(name: string): Simple {
  return (emitter, node, [a = '']) => {
    const text = `R.clockPart('${name}', ${a}, ${ticksOf(node.args[0]?.type)})`
    return { text: emitter.isWide ? `BigInt(${text})` : text }
  }
}

function namesOf(names: readonly string[], made: (name: string) => Simple): Record<string, Simple> {
  return Object.fromEntries(names.map((name) => [name, made(name)]))
}

/** A text by a format; `otherwise` is the code where it is not of it. */
function reading(otherwise: (text: string) => string): Simple {
  return (emitter, { args }, [a = '']) => {
    const made = emitter.declare('null')
    const read = emitter.constant(timeReader(String(args[1]?.value)))
    const stored = emitter.isWide
      ? `BigInt(${made})`
      : `typeof ${made} === 'bigint' ? W() : ${made}`
    return {
      text: `((${made} = ${read}(${a})) === null ? ${otherwise(a)} : ${stored})`,
      mayBeNull: true,
      initial: emitter.isWide ? '0n' : '0',
    }
  }
}

export const DATE_CALLS: Record<string, Simple> = {
  ...namesOf(['year', 'month', 'day', 'quarter'], (name) => part('datePart', name)),
  ...namesOf(['dow', 'isodow', 'doy', 'week'], (name) => part('dayPart', name)),
  ...namesOf(['hour', 'minute', 'second'], clockPart),
  date_trunc: (emitter, { type }, [value = '', unit = '']) => ({
    text:
      type.name === 'Date'
        ? `R.truncDate(${unit}, ${value})`
        : `R.truncTime(${unit}, ${value}, ${ticksOf(type)})`,
    mayThrow: true,
    initial: emitter.isBig(type) ? '0n' : '0',
  }),
  date_diff: (emitter, { args }, [start = '', end = '', unit = '']) => {
    const type = args[0]?.type
    const dates = `R.diffDates(${unit}, ${start}, ${end})`
    return {
      text:
        type?.name === 'Timestamp'
          ? `R.diffTimes(${unit}, ${start}, ${end}, ${ticksOf(type)})`
          : emitter.isWide
            ? `BigInt(${dates})`
            : dates,
      mayThrow: true,
      initial: emitter.isWide ? '0n' : '0',
    }
  },
  date_add: (emitter, { type }, [value = '', count = '', unit = '']) => ({
    text:
      type.name === 'Date'
        ? `R.addToDate(${unit}, ${count}, ${value})`
        : `R.addToTime(${unit}, ${count}, ${value}, ${ticksOf(type)})`,
    mayThrow: true,
    initial: emitter.isBig(type) ? '0n' : '0',
  }),
  make_date: (_, __, [year = '', month = '', day = '']) => ({
    text: `R.makeDate(${year}, ${month}, ${day})`,
    mayThrow: true,
  }),
  epoch: (emitter, { args }, [a = '']) => {
    const type = args[0]?.type
    if (type?.name !== 'Timestamp') return { text: `${a} * 86400` }
    return { text: `${emitter.isWide ? `Number(${a})` : a} / ${ticksOf(type)}` }
  },
  epoch_ms: (emitter, { args }, [a = '']) => {
    const type = args[0]?.type
    const seconds = emitter.isWide ? `BigInt(${a}) * 86400n` : `${a} * 86400`
    return {
      text:
        type?.name === 'Timestamp'
          ? `R.epochMillis(${a}, ${ticksOf(type)})`
          : `R.epochMillis(${seconds}, 1)`,
      mayThrow: true,
      initial: emitter.isWide ? '0n' : '0',
    }
  },
  strftime: (emitter, { args }, [a = '']) => {
    const type = args[0]?.type
    const parts = emitter.constant(formatParts(String(args[1]?.value)))
    return {
      text:
        type?.name === 'Timestamp'
          ? `R.formatted(${parts}, ${a}, ${ticksOf(type)})`
          : `R.formatted(${parts}, ${a} * 86400, 1)`,
    }
  },
  strptime: reading((text) => `R.refuseFormat(${text})`),
  try_strptime: reading(() => 'null'),
}
