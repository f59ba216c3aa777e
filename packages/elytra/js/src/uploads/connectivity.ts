/** Whether this machine has a network at all; where the platform cannot say, it has one. */

/** The network of a browser; tests inject one. */
export interface Connectivity {
  online(): boolean
  /** Call `action` at the next change to online; returns what ends that. */
  onOnline(action: () => void): () => void
}

export const PLATFORM_CONNECTIVITY: Connectivity = {
  online: () => typeof navigator === 'undefined' || navigator.onLine !== false,
  onOnline: (action) => {
    if (typeof addEventListener === 'undefined') return () => undefined
    addEventListener('online', action)
    return () => removeEventListener('online', action)
  },
}
