/** Unique names, also on pages without https, where `crypto.randomUUID` is missing. */

/** 128 random bits in hex. */
export function randomName(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}
