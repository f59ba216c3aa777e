/** Errors, classified by what the caller can do about them. */

export class ElkynError extends Error {
  override readonly name: string = 'ElkynError'
}

/** An invalid path or value; `path` is the path of the invalid part. */
export class BadValue extends ElkynError {
  override readonly name = 'BadValue'

  constructor(
    readonly path: string,
    reason: string,
  ) {
    super(`${path}: ${reason}`)
  }
}

/** The server refused the request; `status` is the HTTP status. */
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
  /** The HTTP status, if there was a response. */
  status?: number
  /** The retry delay in milliseconds that the server requests. */
  afterMs?: number
}

/** The store or client was closed. */
export class Closed extends ElkynError {
  override readonly name = 'Closed'

  constructor(what: string) {
    super(`${what} is closed`)
  }
}
