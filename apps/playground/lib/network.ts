/** The network of nodes, from `/api/network`, and where its drawing has them. */

/** A node as the one that serves this page sees it. */
export interface NetworkNode {
  id: string
  name: string
  admin: boolean
  /** `alive`, `suspect`, `dead`, `leaving`, `left` or `unknown`. */
  state: string
  /** Unix seconds of its admission. */
  since: number
  addresses: string[]
  zone: string | null
  version: string | null
  rttSeconds: number | null
  /** What the two nodes cannot do together. */
  cannot: string[]
}

/** A node that asks to join, and waits to be accepted here. */
export interface WaitingNode {
  id: string
  name: string
  fingerprint: string
  since: number
}

/** The body of `/api/network`; the node that serves it is the first of `nodes`. */
export interface NetworkReport {
  /** Null if this node is in none. */
  network: string | null
  /** Whether the network has removed this node. */
  revoked: boolean
  /** Whether this user may invite and accept nodes. */
  mayManage: boolean
  node: { id: string; name: string; fingerprint: string; port: number | null }
  nodes: NetworkNode[]
  waiting: WaitingNode[]
}

/** A place on the drawing; `anchor` is where its label begins. */
export interface Place {
  x: number
  y: number
  labelX: number
  labelY: number
  anchor: 'start' | 'middle' | 'end'
}

const LABEL_GAP = 14
/** Labels left and right of the circle begin at their node, those above and below are centred. */
const SIDE = 0.35

/** Places of nodes on a circle around the origin, the first one at the top. */
export function circle(count: number, radius: number): Place[] {
  return Array.from({ length: count }, (_, index) => {
    const angle = (2 * Math.PI * index) / count - Math.PI / 2
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)]
    return {
      x: radius * cos,
      y: radius * sin,
      labelX: (radius + LABEL_GAP) * cos,
      labelY: (radius + LABEL_GAP) * sin,
      anchor: Math.abs(cos) < SIDE ? 'middle' : cos > 0 ? 'start' : 'end',
    }
  })
}

/** A round trip in words; null if none was measured. */
export function roundTrip(seconds: number | null): string | null {
  if (seconds === null) return null
  const ms = seconds * 1000
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`
}

/** Whether a node can be reached from its own machine alone. */
export function isLocalOnly(addresses: readonly string[]): boolean {
  return addresses.every((address) => /^(127\.|localhost:|\[::1\])/.test(address))
}

/** A name as far as a drawing has room for it. */
export function shortName(name: string, characters: number): string {
  return name.length <= characters ? name : `${name.slice(0, characters - 1)}…`
}

/** How many nodes answer, in words: `3 of 4 nodes answer`. */
export function summary(nodes: readonly NetworkNode[]): string {
  const alive = nodes.filter(({ state }) => state === 'alive').length
  if (nodes.length === 1) return 'This node is the only one so far.'
  return alive === nodes.length
    ? `All ${nodes.length} nodes answer.`
    : `${alive} of ${nodes.length} nodes answer.`
}
