/** Bytes that may be held at the same time; what does not fit waits. */

interface Waiting {
  bytes: number
  admit: () => void
}

export class ByteBudget {
  private held = 0
  /** In order: a large one is not passed by small ones for ever. */
  private readonly waiting: Waiting[] = []

  constructor(private readonly bytesMax: number) {}

  /**
   * Wait until so many bytes fit; one that is larger than the whole budget waits to be the only one.
   *
   * @throws the signal's reason if it is aborted meanwhile: nothing is held then.
   */
  async reserve(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.waiting.length === 0 && this.fits(bytes)) {
      this.held += bytes
      return
    }
    await new Promise<void>((resolve, reject) => {
      const waiting: Waiting = { bytes, admit: resolve }
      this.waiting.push(waiting)
      signal.addEventListener('abort', () => {
        const at = this.waiting.indexOf(waiting)
        if (at < 0) return // it was admitted before
        this.waiting.splice(at, 1)
        this.admit() // it may have been the one that the others waited behind
        reject(signal.reason as Error)
      })
    })
  }

  /** Release bytes that were reserved. */
  release(bytes: number): void {
    this.held -= bytes
    this.admit()
  }

  private fits(bytes: number): boolean {
    return this.held === 0 || this.held + bytes <= this.bytesMax
  }

  private admit(): void {
    for (;;) {
      const [first] = this.waiting
      if (!first || !this.fits(first.bytes)) return
      this.waiting.shift()
      this.held += first.bytes
      first.admit()
    }
  }
}
