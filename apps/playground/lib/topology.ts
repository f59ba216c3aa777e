/** The map of the network, from `/api/network/map`, and where its drawing has the nodes. */

import type { NetworkNode } from './network'

/** A connection between two nodes, by their names; `relay` is null if it is direct. */
export interface MapLink {
  nodes: [string, string]
  rttSeconds: number | null
  relay: string | null
}

/** The body of `/api/network/map`; `problem` says why a node did not name its connections. */
export interface NetworkMap {
  nodes: { name: string; problem: string | null }[]
  links: MapLink[]
}

/** The slowest connections first; those that were not measured last. */
export function bySlowness(links: readonly MapLink[]): MapLink[] {
  return [...links].sort((a, b) => (b.rttSeconds ?? -1) - (a.rttSeconds ?? -1))
}

/** The nodes of a drawing: this one first, the others so that those of a zone are neighbours. */
export function byZone(nodes: readonly NetworkNode[], most: number): NetworkNode[] {
  const [own, ...others] = nodes
  if (!own) return []
  const rank = ({ zone }: NetworkNode) => (zone === own.zone ? 0 : 1)
  const ordered = others.sort(
    (a, b) =>
      rank(a) - rank(b) ||
      (a.zone ?? '').localeCompare(b.zone ?? '') ||
      a.name.localeCompare(b.name),
  )
  return [own, ...ordered].slice(0, most)
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

/** A name as far as a drawing has room for it. */
export function shortName(name: string, characters: number): string {
  return name.length <= characters ? name : `${name.slice(0, characters - 1)}…`
}
