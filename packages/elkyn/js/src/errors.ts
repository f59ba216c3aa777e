/** What went wrong, by what the caller can do about it. */

export class ElkynError extends Error {
  override readonly name: string = 'ElkynError'
}

/** A path or value that no tree can hold; `path` is the place that breaks. */
export class BadValue extends ElkynError {
  override readonly name = 'BadValue'

  constructor(
    readonly path: string,
    reason: string,
  ) {
    super(`${path}: ${reason}`)
  }
}

/** The server said no; `status` is HTTP's. */
export class Refused extends ElkynError {
  override readonly name = 'Refused'

  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message)
  }
}

/** The server could not be reached, or was too busy; the same call may work later. */
export class Offline extends ElkynError {
  override readonly name = 'Offline'
  /** HTTP's, when there was an answer. */
  status?: number
  /** After how many milliseconds the server asks for another try. */
  afterMs?: number
}

/** The store or client was closed. */
export class Closed extends ElkynError {
  override readonly name = 'Closed'

  constructor(what: string) {
    super(`${what} is closed`)
  }
}
