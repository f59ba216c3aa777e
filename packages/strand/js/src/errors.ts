/** Errors of a ring, named for what the caller can do about them. */

/** Base class of this package's errors; wrong arguments are TypeError and RangeError. */
export class StrandError extends Error {
  readonly code: string = 'strand'
  /** What to do about it, where that is known. */
  readonly hint: string | null

  constructor(message: string, hint: string | null = null) {
    super(message)
    this.name = new.target.name
    this.hint = hint
  }
}

/** The check of a header that failed, in the order in which they are made. */
export type HeaderCheck =
  | 'size'
  | 'magic'
  | 'version'
  | 'checksum'
  | 'schema-length'
  | 'field'
  | 'fingerprint'
  | 'stride'
  | 'geometry'
  | 'metadata'
  | 'extension'

/** The buffer is not a ring, or its header is damaged; do not use it. */
export class StrandHeaderError extends StrandError {
  override readonly code = 'strand-header'

  constructor(
    readonly check: HeaderCheck,
    readonly expected: string,
    readonly found: string,
  ) {
    super(`the ring's header fails its ${check} check: expected ${expected}, found ${found}`)
  }
}

/** One side aborted the stream, for `reason`. */
export class StrandAbortError extends StrandError {
  override readonly code = 'strand-abort'

  constructor(readonly reason = '') {
    super(reason ? `the stream was aborted: ${reason}` : 'the stream was aborted')
  }
}

/** A counter or a pointer in the ring is invalid; do not use the ring any more. */
export class StrandCorruptError extends StrandError {
  override readonly code = 'corrupt'
}

/** One record needs more of the heap than is allowed. */
export class PayloadTooLargeError extends StrandError {
  override readonly code = 'payload-too-large'

  constructor(
    readonly limitBytes: number,
    readonly actualBytes: number,
    what = "a record's payload",
  ) {
    super(
      `${what} needs ${actualBytes} bytes, and at most ${limitBytes} fit`,
      'slice it, or make the ring with a larger heap',
    )
  }
}

/** A v5 ring has carried as many records as its 31-bit counters allow. */
export class RingExhaustedError extends StrandError {
  override readonly code = 'ring-exhausted'

  constructor() {
    super('a v5 ring carries at most 2147483647 records', 'use layout version 6')
  }
}

/** The ring is full, and every consumer has left. */
export class ConsumerGoneError extends StrandError {
  override readonly code = 'consumer-died'

  constructor() {
    super(
      'the ring is full, and every consumer has left',
      "pass whenUnread: 'wait' or 'discard' to write on without them",
    )
  }
}

/** No record was acknowledged within the timeout; the record without room was not written. */
export class StrandTimeoutError extends StrandError {
  override readonly code = 'deadline-exceeded'

  constructor(timeoutMs: number) {
    super(
      `no room in the ring for ${timeoutMs} ms`,
      'acknowledge records, release consumers that stopped reading, or pass a longer timeoutMs',
    )
  }
}

/** The producer began a new stream, and the requested record was of the old one. */
export class StreamResetError extends StrandError {
  override readonly code = 'stream-reset'

  constructor(after: number) {
    super(
      `the producer began a new stream, and record ${after} was of the last one`,
      'read on from record 0',
    )
  }
}

/** A wait that cannot end: the producer has no room until this view acknowledges records. */
export class LeaseHeldError extends StrandError {
  override readonly code = 'lease-held'

  constructor(unread: number, position: number, own: boolean) {
    super(
      `${unread} records are read and not acknowledged, and the ring has no room for the next`,
      own
        ? `the view's own consumer is at record ${position}: acknowledge without a token as well, ` +
            'or call releaseConsumer() to read by tokens alone'
        : `acknowledge for the consumer that is at record ${position}`,
    )
  }
}

/** The ring has no room, and this thread may not sleep until it has. */
export class WouldBlockError extends StrandError {
  override readonly code = 'would-block'

  constructor() {
    super(
      'the ring is full, and this thread may not block (such as the main thread of a page)',
      'write in a Worker, or use writeRecordBatchAsync and waitForRoom',
    )
  }
}

/** The role was released, or the stream has ended. */
export class StrandClosedError extends StrandError {
  override readonly code = 'closed'
}

/** The role is in use, or records are unread. */
export class StrandConflictError extends StrandError {
  override readonly code = 'conflict'
}

/** A received frame is invalid; none of its records was published. */
export class BridgeFrameError extends StrandError {
  override readonly code = 'bridge-frame'
}
