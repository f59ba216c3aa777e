/** Shared tables, from `/api/network/datasets`, in words. */

import { formatCount, plural } from './format'
import { listed } from './network'

/** How a table is shared, and the state of its copies. */
export interface SharedDataset {
  /** Its id. */
  dataset: string
  name: string
  encrypted: boolean
  /** Whether this user may change how it is shared. */
  mayShare: boolean
  /** The node that writes it; null if it is this one. */
  writer: string | null
  /** Whether its rows are read by queries at its writer alone. */
  restricted: boolean
  /** The nodes that it is shared with; null for all. */
  nodes: string[] | null
  readOnly: boolean | null
  /** On how many nodes each shard is to be. */
  copies: number
  /** The nodes that hold every shard. */
  pins: string[]
  /** The only nodes that may hold one; empty for any. */
  only: string[]
  state: CopyState | null
  /** Whether its writer was removed from the network; what came from it stays. */
  writerRevoked: boolean
  /** A hand-over that is under way, with the other node. */
  handOver: { state: string; node: string } | null
  /** Why the last hand-over was refused; null if it was not. */
  handOverRefusal: string | null
  /** What it is a fork of, as its writer says. */
  forkOf: { dataset: string; name: string; version: number } | null
}

/** The copies of the shards of a table. */
export interface CopyState {
  objects: number
  /** How many are on this node. */
  held: number
  /** How many nodes can hold the shard that the fewest can. */
  places: number
  underReplicated: number
  unavailable: number
  missingHere: number
  /** How many each other node is to hold and lacks. */
  lacking: Record<string, number>
}

/** The body of `PUT /api/datasets/{dataset}/sharing`. */
export interface ShareRequest {
  nodes: string[] | null
  copies: number
  pins: string[]
  only: string[]
  readOnly: boolean
}

/** How well a table is copied: `good`, `warn`, `bad`, or `unknown`. */
export type CopyTone = 'good' | 'warn' | 'bad' | 'unknown'

/** How well a table is copied, and that in words. */
export function copyHealth(dataset: SharedDataset): { tone: CopyTone; text: string } {
  const { state, copies } = dataset
  if (state === null || state.objects === 0) {
    return { tone: 'unknown', text: dataset.restricted ? 'no copies' : 'not known yet' }
  }
  if (state.unavailable > 0) {
    const text = `${subject(state.unavailable, state.objects, 'is', 'are')} on no node that answers`
    return { tone: 'bad', text }
  }
  if (state.underReplicated > 0) {
    const text = `${subject(state.underReplicated, state.objects, 'has', 'have')} too few copies`
    return { tone: 'warn', text }
  }
  const each = copies === 1 ? '1 copy' : `${copies} copies`
  return { tone: 'good', text: `${each} of ${plural(state.objects, 'shard')}` }
}

/** Some of the shards and their verb: `3 of 12 shards have`. */
function subject(count: number, objects: number, one: string, many: string): string {
  if (objects === 1) return `its only shard ${one}`
  const which = count === objects ? 'all' : `${formatCount(count)} of`
  return `${which} ${plural(objects, 'shard')} ${count === 1 ? one : many}`
}

/** Why no repair helps: fewer nodes may hold the table than copies are wanted; else null. */
export function shortageOf({ state, copies }: SharedDataset): string | null {
  if (state === null || state.underReplicated === 0 || state.places >= copies) return null
  return `${plural(state.places, 'node')} may hold it and ${state.places === 1 ? 'has' : 'have'} room; ${copies} wanted`
}

/** Who lacks a copy, this node included: `rome lacks 3`. */
export function lackersOf({ state }: SharedDataset): string[] {
  if (state === null) return []
  const others = Object.entries(state.lacking)
    .filter(([, count]) => count > 0)
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([node, count]) => `${node} lacks ${formatCount(count)}`)
  return state.missingHere > 0
    ? [`this node lacks ${formatCount(state.missingHere)}`, ...others]
    : others
}

/** How much of a table is on this node: `all`, `none`, `3 of 12`. */
export function heldHere({ state, writer }: SharedDataset): string {
  if (state === null || state.objects === 0) return writer === null ? 'all' : 'none'
  if (state.held === state.objects) return 'all'
  return state.held === 0 ? 'none' : `${formatCount(state.held)} of ${formatCount(state.objects)}`
}

/** Who writes a table, and who else reads it. */
export function readersOf({ nodes, writer }: SharedDataset): string {
  if (writer !== null) return 'shared with this node'
  if (nodes === null) return 'all nodes'
  return listed(nodes, 4)
}

/** What the other nodes, or this one if another writes it, may do. */
export function accessOf({ restricted, readOnly, writer }: SharedDataset): string {
  if (restricted) return 'what a policy shows'
  const who = writer === null ? 'they' : 'this node'
  const reads = writer === null ? 'they read' : 'this node reads'
  return readOnly === false ? `${who} may change rows` : reads
}

/** Who writes a table, in words. */
export function writerOf({ writer, writerRevoked }: SharedDataset): string {
  if (writer === null) return 'this node'
  return writerRevoked ? writer.slice(0, 16) : writer
}

const HAND_OVERS: Record<string, (node: string) => string> = {
  offered: (node) => `Offered to ${node}, where an admin accepts it`,
  stopped: (node) => `Being handed over to ${node}; it takes no changes until then`,
  signed: (node) => `Handed over to ${node}, which does not write it yet`,
  accepting: (node) => `Being handed over to this node by ${node}`,
  refused: (node) => `Not accepted here; ${node} hears of that when it can be reached`,
}

/** How far a hand-over is, or why the last one was refused, in words; null if there is none. */
export function handOverOf({ handOver, handOverRefusal }: SharedDataset): string | null {
  if (handOver) return HAND_OVERS[handOver.state]?.(handOver.node) ?? handOver.state
  return handOverRefusal === null ? null : `It was not handed over: ${handOverRefusal}`
}

/** What a user can do about the writer of a table: offer it, accept it, or end what is under way. */
export function handOverActions(
  dataset: SharedDataset,
  mayManage: boolean,
): { offer: boolean; accept: boolean; undo: boolean } {
  const { writer, writerRevoked, handOver, handOverRefusal, restricted, encrypted } = dataset
  const isOwn = writer === null
  const state = handOver?.state
  const isWhole = !restricted && !encrypted
  return {
    offer: isOwn && dataset.mayShare && isWhole && !handOver,
    accept: !isOwn && mayManage && !writerRevoked && isWhole && state !== 'accepting',
    undo:
      (state === 'offered' ||
        state === 'stopped' ||
        state === 'accepting' ||
        (!handOver && handOverRefusal !== null)) &&
      (dataset.mayShare || mayManage),
  }
}

/** How many tables have shards with too few copies, or none, in words. */
export function copySummary(datasets: readonly SharedDataset[]): { tone: CopyTone; text: string } {
  if (datasets.length === 0) return { tone: 'unknown', text: 'None is shared' }
  const tones = datasets.map((each) => copyHealth(each).tone)
  const bad = tones.filter((tone) => tone === 'bad').length
  const few = tones.filter((tone) => tone === 'warn').length
  if (bad > 0) return { tone: 'bad', text: `${formatCount(bad)} incomplete` }
  if (few > 0) return { tone: 'warn', text: `${formatCount(few)} with too few copies` }
  return { tone: 'good', text: 'All have their copies' }
}

const RANK: Record<CopyTone, number> = { bad: 0, warn: 1, good: 2, unknown: 2 }

/** Those that lack copies first, then by name. */
export function byNeed(datasets: readonly SharedDataset[]): SharedDataset[] {
  return [...datasets].sort(
    (a, b) => RANK[copyHealth(a).tone] - RANK[copyHealth(b).tone] || a.name.localeCompare(b.name),
  )
}

/** As of `--copies`. */
export const COPIES_MAX = 16

/** What a user chooses of how a table is shared. */
export interface Sharing {
  withAll: boolean
  nodes: string[]
  mayChange: boolean
  copies: number
  pins: string[]
  only: string[]
}

/** How a table is shared now; of one that is private, what is proposed. */
export function sharingOf(dataset: SharedDataset | null): Sharing {
  return {
    withAll: dataset !== null && dataset.nodes === null,
    nodes: dataset?.nodes ?? [],
    mayChange: dataset?.readOnly === false,
    copies: dataset?.copies ?? 2,
    pins: dataset?.pins ?? [],
    only: dataset?.only ?? [],
  }
}

/** The request for a choice: what is with all nodes is always read only. */
export function requestOf(sharing: Sharing): ShareRequest {
  const { withAll, nodes, mayChange, copies, pins, only } = sharing
  return { nodes: withAll ? null : nodes, copies, pins, only, readOnly: withAll || !mayChange }
}
