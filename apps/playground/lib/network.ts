/** The network of nodes, from `/api/network`, in words and numbers. */

import { formatCount, plural } from './format'

/** A node as the one that serves this page sees it. */
export interface NetworkNode {
  id: string
  name: string
  fingerprint: string
  admin: boolean
  /** `alive`, `suspect`, `dead`, `leaving`, `left` or `unknown`. */
  state: string
  /** Unix seconds of its admission. */
  since: number
  /** Unix seconds at which it was last known to live; null of this node, and if it never was. */
  heardAt: number | null
  addresses: string[]
  zone: string | null
  version: string | null
  /** What it offers for copies, and how much of that is used. */
  capacityBytes: number | null
  usedBytes: number | null
  rttSeconds: number | null
  /** Null if this node is not connected to it; bytes since this node is in the network. */
  connection: { relay: string | null; sentBytes: number; receivedBytes: number } | null
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
  /** Unix seconds by the node's clock. */
  time: number
  /** Null if this node is in none. */
  network: string | null
  /** Whether the network has removed this node. */
  revoked: boolean
  /** Whether this user may invite and accept nodes. */
  mayManage: boolean
  /** Whether this user may share tables of their own. */
  mayWrite: boolean
  /** Whether this node searches the local network for others (`network.discovery`). */
  discovers: boolean
  node: { id: string; name: string; fingerprint: string; port: number | null }
  nodes: NetworkNode[]
  waiting: WaitingNode[]
}

/** A node that is announced on the local network; nothing of that is verified. */
export interface NearbyNode {
  id: string
  name: string
  fingerprint: string
  addresses: string[]
  /** Whether it is a member of this node's network. */
  member: boolean
  /** Whether it says that it is in this node's network. */
  sameNetwork: boolean
}

/** The body of `/api/network/discover`. */
export interface NearbyReport {
  announced: boolean
  /** Why this node is not announced itself; null if it is. */
  problem: string | null
  nodes: NearbyNode[]
}

/** What a node nearby is to this one, in words. */
export function relationOf({ member, sameNetwork }: NearbyNode): string {
  if (member) return 'in this network'
  return sameNetwork ? 'says that it is in this network' : 'in another network'
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

/** How many nodes answer, in words: `3 of 4 nodes answer`. */
export function summary(nodes: readonly NetworkNode[]): string {
  const alive = nodes.filter(({ state }) => state === 'alive').length
  if (nodes.length === 1) return 'This node is the only one so far.'
  return alive === nodes.length
    ? `All ${nodes.length} nodes answer.`
    : `${alive} of ${nodes.length} nodes answer.`
}

/** States in which a node needs attention, the worst first. */
const TROUBLES = ['dead', 'unknown', 'suspect', 'leaving']

/** This node first, then those that need attention, the worst first, then all others by name. */
export function byTrouble(nodes: readonly NetworkNode[]): NetworkNode[] {
  const rank = ({ state }: NetworkNode) => {
    const index = TROUBLES.indexOf(state)
    return index < 0 ? TROUBLES.length : index
  }
  const [own, ...others] = nodes
  if (!own) return []
  return [own, ...others.sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name))]
}

/** Whether every word of a search occurs in one of the texts; without a word it does. */
export function matches(texts: readonly (string | null)[], search: string): boolean {
  const all = texts.join('\n').toLowerCase()
  return search
    .toLowerCase()
    .split(/\s+/)
    .every((word) => all.includes(word))
}

/** What a search for a node looks at. */
export function textsOf(node: NetworkNode): (string | null)[] {
  return [
    node.name,
    node.fingerprint,
    node.id,
    node.state,
    node.zone,
    node.version,
    wayOf(node),
    ...node.addresses,
    ...node.cannot,
  ]
}

/** How this node is connected to another one, in words. */
export function wayOf(node: NetworkNode): string {
  if (node.connection === null) return 'not connected'
  return node.connection.relay === null ? 'direct' : `through ${node.connection.relay}`
}

/** What all nodes that answer offer for copies, and how much of it is used. */
export function roomOf(nodes: readonly NetworkNode[]): { used: number; capacity: number } {
  const answering = nodes.filter(({ state }) => state !== 'dead' && state !== 'left')
  return {
    used: answering.reduce((sum, { usedBytes }) => sum + (usedBytes ?? 0), 0),
    capacity: answering.reduce((sum, { capacityBytes }) => sum + (capacityBytes ?? 0), 0),
  }
}

/** Bytes in a second. */
export interface Rate {
  sent: number
  received: number
}

/** An average over less would jump with every message. */
const RATE_SECONDS_MIN = 4

/** Rates of transfer from the counters of consecutive reports. */
export class RateMeter {
  private samples: { time: number; nodes: Map<string, Rate> }[] = []

  /** Take a report; return the rate of each connected node that was connected before, too. */
  next(report: NetworkReport): Map<string, Rate> {
    const counted = new Map<string, Rate>()
    for (const { id, connection } of report.nodes) {
      if (connection !== null) {
        counted.set(id, { sent: connection.sentBytes, received: connection.receivedBytes })
      }
    }
    // A clock that was set back leaves samples of the future.
    this.samples = this.samples.filter(({ time }) => time <= report.time)
    const oldEnough = this.samples.filter(({ time }) => report.time - time >= RATE_SECONDS_MIN)
    const base = oldEnough.at(-1)
    this.samples = [
      ...this.samples.slice(Math.max(0, oldEnough.length - 1)),
      { time: report.time, nodes: counted },
    ]
    const rates = new Map<string, Rate>()
    if (!base) return rates
    for (const [id, now] of counted) {
      const before = base.nodes.get(id)
      if (!before || now.sent < before.sent || now.received < before.received) continue
      const seconds = report.time - base.time
      rates.set(id, {
        sent: (now.sent - before.sent) / seconds,
        received: (now.received - before.received) / seconds,
      })
    }
    return rates
  }
}

/** All rates together; null if there is none. */
export function totalOf(rates: ReadonlyMap<string, Rate>): Rate | null {
  if (rates.size === 0) return null
  const all = [...rates.values()]
  return {
    sent: all.reduce((sum, { sent }) => sum + sent, 0),
    received: all.reduce((sum, { received }) => sum + received, 0),
  }
}

/** One result of `/api/network/check`, with what to do about it. */
export interface Finding {
  subject: string
  ok: boolean
  found: string
  remedy: string
}

/** How many problems were found, in words. */
export function verdict(findings: readonly Finding[]): string {
  const problems = findings.filter(({ ok }) => !ok).length
  if (problems === 0) return `All ${findings.length} checks passed.`
  return problems === 1 ? 'One problem was found.' : `${problems} problems were found.`
}

/** A line of the answer of `/api/network/heal`; `problems` is in the last one. */
export interface HealReport {
  datasets: number
  verified: number
  damaged: number
  objects: number
  underReplicated: number
  unavailable: number
  missing: number
  problems: Finding[]
  done: boolean
}

/** How far a repair is, in words. */
export function healed(report: HealReport): string {
  const { objects, missing, underReplicated, unavailable } = report
  const read = `${plural(report.verified, 'object')} verified here, ${formatCount(report.damaged)} of them damaged`
  if (objects === 0) return `${plural(report.datasets, 'shared table')}; ${read}.`
  if (missing + underReplicated + unavailable === 0) {
    return `${plural(objects, 'shard')}, each with all of its copies; ${read}.`
  }
  return (
    `${plural(objects, 'shard')}: ${formatCount(missing)} copies missing, ` +
    `${formatCount(underReplicated)} with too few, ${formatCount(unavailable)} without any; ${read}.`
  )
}

/** A line of the answer of `POST /api/network/leave`. */
export interface LeaveReport {
  objects: number
  waiting: number
  datasets: string[]
  left: boolean
  done: boolean
}

/** What leaving means: tables without new versions for others, and tables that are gone here. */
export interface LeaveConsequences {
  writes: string[]
  reads: string[]
}

/** How far a node is with leaving, in words. */
export function handedOver({ objects, waiting, datasets }: LeaveReport): string {
  if (objects === 0) return 'Nothing is to be handed over.'
  if (waiting === 0) return `All of ${plural(objects, 'shard')} are held by other nodes.`
  const text = `${formatCount(waiting)} of ${plural(objects, 'shard')} are still to be handed over`
  return datasets.length > 0 ? `${text}, of ${listed(datasets)}.` : `${text}.`
}

/** Names in a sentence, so many that it can be read. */
export function listed(names: readonly string[], most = 6): string {
  const more = names.length - most
  return more > 0
    ? `${names.slice(0, most).join(', ')} and ${formatCount(more)} more`
    : names.join(', ')
}
