/**
 * The code that runs in a sandbox: it calls a function with the rows of batches.
 *
 * `guest` and `frame` are sent as their text, so that they use nothing outside of themselves. The
 * function of the user shares its thread with `guest` and can change all of it: who receives its
 * messages checks them.
 */

import { functionOf, spelled, type FunctionText } from './functionText.ts'
import type { Call, FromGuest, FromSandbox, Kind, Packed, ToGuest } from './messages.ts'

/** The port of a thread: of a worker, or of Node. */
interface Port {
  listen(receive: (message: ToGuest) => void): void
  post(message: FromGuest, buffers: ArrayBuffer[]): void
}

type Value = number | bigint | boolean | string | null

/** Call a function with each batch that arrives, and answer each one. */
export function guest(port: Port, fn: (...values: unknown[]) => unknown, call: Call): void {
  const { verb, shape, input, output, returnsValue } = call
  let total = call.initial
  let at = { row: -1, column: null as string | null }

  function readersOf(columns: readonly Packed[]): ((row: number) => Value)[] {
    return columns.map(({ form, values, ends, nulls }) => {
      const isNull = nulls && new Uint8Array(nulls)
      const read = readerOf(form, values, ends)
      return (row: number) => (isNull?.[row] ? null : read(row))
    })
  }

  function readerOf(
    form: Packed['form'],
    values: ArrayBuffer,
    ends: ArrayBuffer | null,
  ): (row: number) => Value {
    if (form === 'text') {
      const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(values)
      const stops = new Uint32Array(ends ?? new ArrayBuffer(0))
      return (row) => text.slice(row === 0 ? 0 : stops[row - 1], stops[row])
    }
    if (form === 'bool') {
      const bytes = new Uint8Array(values)
      return (row) => bytes[row] === 1
    }
    if (form === 'double') {
      const numbers = new Float64Array(values)
      return (row) => numbers[row] ?? 0
    }
    const whole = form === 'int64' ? new BigInt64Array(values) : new BigUint64Array(values)
    return (row) => {
      const value = whole[row] ?? 0n
      return Number.isSafeInteger(Number(value)) ? Number(value) : value
    }
  }

  function rowOf(readers: readonly ((row: number) => Value)[], row: number): unknown {
    const values = readers.map((read) => read(row))
    if (shape === 'value') return values[0]
    if (shape === 'tuple') return values
    return Object.fromEntries(values.map((value, place) => [input[place] ?? '', value]))
  }

  function checked(value: unknown, kind: Kind): Value {
    if (value === null || value === undefined) return null
    if (kind === 'float' && typeof value === 'number') return value
    if (kind === 'bool' && typeof value === 'boolean') return value
    if (kind === 'text' && typeof value === 'string') return value
    if (kind === 'int' && (typeof value === 'bigint' || Number.isSafeInteger(value)))
      return value as number | bigint
    const wanted = { float: 'a number', int: 'a whole number', bool: 'a boolean', text: 'a text' }
    const isPromise = typeof (value as { then?: unknown }).then === 'function'
    const found = isPromise ? 'a Promise' : typeof value === 'object' ? 'an object' : String(value)
    throw new TypeError(`the function returned ${found.slice(0, 80)}, not ${wanted[kind]}`)
  }

  function packed(values: readonly Value[], kind: Kind): Packed {
    const nulls = values.includes(null)
      ? Uint8Array.from(values, (value) => Number(value === null)).buffer
      : null
    const isText = kind === 'text' || values.some((value) => typeof value === 'bigint')
    if (!isText) {
      const form = kind === 'bool' ? 'bool' : 'double'
      const numbers = values.map((value) => Number(value ?? 0))
      const stored = form === 'bool' ? Uint8Array.from(numbers) : Float64Array.from(numbers)
      return { form, values: stored.buffer as ArrayBuffer, ends: null, nulls }
    }
    const texts = values.map((value) => (value === null ? '' : String(value)))
    let end = 0
    const ends = Uint32Array.from(texts, (text) => (end += text.length))
    const bytes = new TextEncoder().encode(texts.join(''))
    return { form: 'text', values: bytes.buffer, ends: ends.buffer, nulls }
  }

  function outputsOf(results: readonly unknown[]): Packed[] {
    return output.map(({ name, kind }) => {
      at = { row: -1, column: name }
      const values = results.map((result, row) => {
        at.row = row
        if (returnsValue) return checked(result, kind)
        if (typeof result !== 'object' || result === null)
          throw new TypeError(`the function returned ${String(result).slice(0, 80)}, not an object`)
        return checked((result as Record<string, unknown>)[name], kind)
      })
      return packed(values, kind)
    })
  }

  function answer(message: ToGuest): Packed[] {
    at = { row: -1, column: null }
    if (message.kind === 'finish') return outputsOf([total])
    const readers = readersOf(message.columns)
    const results: unknown[] = []
    for (let row = 0; row < message.rows; row += 1) {
      at.row = row
      const value = rowOf(readers, row)
      if (verb === 'reduce') total = fn(total, value)
      else results.push(fn(value))
    }
    return verb === 'reduce' ? [] : outputsOf(results)
  }

  port.listen((message) => {
    try {
      const columns = answer(message)
      const buffers = columns.flatMap(({ values, ends, nulls }) =>
        [values, ends, nulls].filter((each) => each !== null),
      )
      port.post({ kind: 'rows', columns }, buffers)
    } catch (error) {
      const { row, column } = at
      port.post({ kind: 'failed', reason: String(error), row: row < 0 ? null : row, column }, [])
    }
  })
}

/**
 * The script of the sandbox's document: it starts the worker, and passes on one answer for each
 * request, with the fields that an answer has and no more bytes than allowed.
 */
export function frame(): void {
  const FIELDS = ['values', 'ends', 'nulls'] as const
  addEventListener('message', function start({ source, data, ports }: MessageEvent) {
    const [port] = ports
    if (source !== parent || !port) return
    removeEventListener('message', start)
    const { code, outputBytesMax } = data as { code: string; outputBytesMax: number }
    const worker = new Worker(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })))
    let isAsked = false

    function end(code: 'too-large' | 'step-failed' | 'worker-lost', reason: string): void {
      worker.terminate()
      worker.onmessage = null
      port?.postMessage({ kind: 'ended', code, reason: reason.slice(0, 1000) } as FromSandbox)
    }

    function pass({ columns }: { columns: Packed[] }): void {
      const copies: Record<string, unknown>[] = []
      const buffers: ArrayBuffer[] = []
      let bytes = 0
      for (const column of columns) {
        const copy: Record<string, unknown> = { form: String(column.form).slice(0, 10) }
        for (const field of FIELDS) {
          const buffer = column[field]
          copy[field] = buffer instanceof ArrayBuffer ? buffer : null
          if (!(buffer instanceof ArrayBuffer)) continue
          bytes += buffer.byteLength
          buffers.push(buffer)
        }
        copies.push(copy)
        if (bytes > outputBytesMax || copies.length > 10_000)
          return end('too-large', `it returned more than ${outputBytesMax} bytes for a batch`)
      }
      port?.postMessage({ kind: 'rows', columns: copies }, buffers)
    }

    worker.onmessage = ({ data }: MessageEvent<FromGuest>) => {
      if (!isAsked) return end('step-failed', 'it sent a message that was not asked for')
      isAsked = false
      if (data?.kind === 'rows' && Array.isArray(data.columns)) return pass(data)
      const { reason, row, column } = (data ?? {}) as FromGuest & { kind: 'failed' }
      port.postMessage({
        kind: 'failed',
        reason: String(reason).slice(0, 1000),
        row: Number.isSafeInteger(row) ? row : null,
        column: typeof column === 'string' ? column.slice(0, 1000) : null,
      })
    }
    worker.onmessageerror = () => end('step-failed', 'its answer could not be read')
    worker.onerror = (event) => {
      event.preventDefault()
      end('step-failed', event.message || 'it cannot be started')
    }
    port.onmessage = ({ data }: MessageEvent<ToGuest>) => {
      isAsked = true
      const columns = data.kind === 'rows' ? data.columns : []
      const buffers = columns.flatMap((column) =>
        FIELDS.map((field) => column[field]).filter((each) => each !== null),
      )
      worker.postMessage(data, buffers)
    }
    port.postMessage({ kind: 'ready' })
  })
}

/** The script of a worker that calls the function of a text. */
export function workerCode(fn: FunctionText, call: Call): string {
  return `'use strict';(${guest})({
    listen: (receive) => { onmessage = ({ data }) => receive(data) },
    post: (message, buffers) => postMessage(message, buffers),
  }, ${functionOf(fn)}, ${spelled(call)})`
}

/** The same as a script for a thread of Node. */
export function threadCode(fn: FunctionText, call: Call): string {
  return `'use strict';{const { parentPort } = require('node:worker_threads');(${guest})({
    listen: (receive) => parentPort.on('message', receive),
    post: (message, buffers) => parentPort.postMessage(message, buffers),
  }, ${functionOf(fn)}, ${spelled(call)})}`
}
