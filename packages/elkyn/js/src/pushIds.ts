/** Push ids: 20 characters that sort by the time they were made (Firebase's scheme). */

const ALPHABET = '-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz'

/** Makes ids, each greater than all before it, also when the clock is set back. */
export class PushIds {
  private last = 0
  private random: number[] = []

  constructor(private readonly now: () => number = Date.now) {}

  next(): string {
    const now = this.now()
    if (now > this.last) {
      this.last = now
      this.random = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte & 63)
    } else {
      this.increase()
    }
    let time = this.last
    const stamp: number[] = []
    for (let index = 0; index < 8; index += 1) {
      stamp.unshift(time % 64)
      time = Math.floor(time / 64)
    }
    return [...stamp, ...this.random].map((digit) => ALPHABET[digit]).join('')
  }

  private increase(): void {
    for (let index = 11; index >= 0; index -= 1) {
      if (this.random[index] !== 63) {
        this.random[index] = (this.random[index] ?? 0) + 1
        return
      }
      this.random[index] = 0
    }
    this.last += 1
  }
}
