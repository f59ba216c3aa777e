/** Transfer rate and time left, over a sliding window so that a stall shows within seconds. */

interface Sample {
  atMs: number
  bytes: number
}

/** Transfer rate over a sliding window: bytes per second over the last `windowMs`. */
export class RateMeter {
  private readonly samples: Sample[] = []

  constructor(private readonly windowMs = 8_000) {}

  /** Record that `bytes` in total had been transferred at `atMs`. */
  record(bytes: number, atMs: number): void {
    this.samples.push({ atMs, bytes })
    while (this.samples.length > 2 && this.samples[1]!.atMs <= atMs - this.windowMs)
      this.samples.shift()
  }

  /** Clear the window, for example after a pause. */
  reset(): void {
    this.samples.length = 0
  }

  /** Bytes per second, or null while there are too few samples. */
  bytesPerSecond(): number | null {
    const first = this.samples[0]
    const last = this.samples.at(-1)
    if (!first || !last || last.atMs - first.atMs < 250) return null
    return Math.max(0, ((last.bytes - first.bytes) * 1000) / (last.atMs - first.atMs))
  }

  /** Seconds until `bytesLeft` more have been transferred, or null while unknown. */
  secondsLeft(bytesLeft: number): number | null {
    if (bytesLeft <= 0) return 0
    const rate = this.bytesPerSecond()
    return rate ? bytesLeft / rate : null
  }
}
