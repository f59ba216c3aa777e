/** What can go wrong with a ring, named for what the caller can do about it. */

/** Any error of this package but wrong arguments, which are TypeError and RangeError. */
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

/** The buffer is not a ring, or its header was damaged; attach to nothing. */
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

/** One side aborted the stream; `reason` is what it said. */
export class StrandAbortError extends StrandError {
  override readonly code = 'strand-abort'

  constructor(readonly reason = '') {
    super(reason ? `the stream was aborted: ${reason}` : 'the stream was aborted')
  }
}

/** A counter or a pointer in the ring is impossible; nothing in it can be trusted. */
export class StrandCorruptError extends StrandError {
  override readonly code = 'corrupt'
}

/** One record needs more of the heap than a record may have. */
export class PayloadTooLargeError extends StrandError {
  override readonly code = 'payload-too-large'

  constructor(
    readonly limitBytes: number,
    readonly actualBytes: number,
    what = "a record's payload",
  ) {
    super(
      `${what} takes ${actualBytes} bytes, and at most ${limitBytes} fit`,
      'slice it, or make the ring with a larger heap',
    )
  }
}

/** A v5 ring has carried all the records that its 31-bit counters can count. */
export class RingExhaustedError extends StrandError {
  override readonly code = 'ring-exhausted'

  constructor() {
    super('a v5 ring carries 2147483647 records, and this one has', 'use layout version 6')
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

/** Consumers gave nothing back for as long as the writer waits; what had no room was not written. */
export class StrandTimeoutError extends StrandError {
  override readonly code = 'deadline-exceeded'

  constructor(timeoutMs: number) {
    super(
      `no room in the ring for ${timeoutMs} ms`,
      'acknowledge records, release consumers that stopped reading, or pass a longer timeoutMs',
    )
  }
}

/** The producer began a new stream, and the record waited for was of the last one. */
export class StreamResetError extends StrandError {
  override readonly code = 'stream-reset'

  constructor(after: number) {
    super(
      `the producer began a new stream, and record ${after} was of the last one`,
      'read on from record 0',
    )
  }
}

/** A wait that cannot end: the producer has no room before this view acknowledges more. */
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
      'the ring is full, and this thread may not block (a page, say)',
      'write in a Worker, or use writeRecordBatchAsync and waitForRoom',
    )
  }
}

/** The role was given up, or the stream has ended. */
export class StrandClosedError extends StrandError {
  override readonly code = 'closed'
}

/** Another holder has the role, or unread records are in the way. */
export class StrandConflictError extends StrandError {
  override readonly code = 'conflict'
}

/** A frame that a bridge received is not what the format allows; nothing of it was shown. */
export class BridgeFrameError extends StrandError {
  override readonly code = 'bridge-frame'
}
