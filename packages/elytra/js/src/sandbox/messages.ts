/** Messages between a pipeline and the sandbox that calls its functions. */

/**
 * A column as buffers, which are transferred. Numbers are doubles or 64-bit integers, Bools bytes; a
 * text is UTF-8 of all values together, with the end of each in UTF-16 units in `ends`.
 */
export interface Packed {
  form: Form
  values: ArrayBuffer
  ends: ArrayBuffer | null
  /** A byte for each row, 1 where the value is NULL; null where none is. */
  nulls: ArrayBuffer | null
}

export type Form = 'double' | 'int64' | 'uint64' | 'bool' | 'text'

/** What a function returns for a column: whole numbers beyond 2^53 are packed as text. */
export type Kind = 'float' | 'int' | 'bool' | 'text'

/** Which function is called, and with what. */
export interface Call {
  verb: 'map' | 'filter' | 'reduce'
  /** How it receives a row, as `map` before it decided. */
  shape: 'row' | 'tuple' | 'value'
  /** The columns of the rows. */
  input: string[]
  output: { name: string; kind: Kind }[]
  /** Whether it returns the value of the only output column, not an object of columns. */
  returnsValue: boolean
  /** Of a reduce. */
  initial: unknown
}

export type ToGuest = { kind: 'rows'; rows: number; columns: Packed[] } | { kind: 'finish' }

export type FromGuest =
  | { kind: 'rows'; columns: Packed[] }
  | { kind: 'failed'; reason: string; row: number | null; column: string | null }

/** From the frame or the thread around the guest. */
export type FromSandbox =
  | FromGuest
  | { kind: 'ready' }
  | { kind: 'ended'; code: 'too-large' | 'step-failed' | 'worker-lost'; reason: string }

/** Limits of a function; beyond one its sandbox ends. */
export interface Limits {
  /** Seconds for one batch of at most 16,384 rows. */
  secondsMax: number
  /** Bytes that it returns for one batch. */
  outputBytesMax: number
}

export const LIMITS: Limits = { secondsMax: 30, outputBytesMax: 64 << 20 }

/** Rows that a function gets at once. */
export const BATCH_ROWS = 16_384

/** Limits of a function of others, which the tab that runs it sets. Its time is below that of a lease. */
export const LIMITS_OF_OTHERS: Limits = { secondsMax: 5, outputBytesMax: 16 << 20 }
