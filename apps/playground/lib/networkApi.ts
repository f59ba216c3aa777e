/** The requests of the page Network; every failure is an ApiError. */

import { ApiError, json, reports } from './api'
import type { QueuedAppend } from './appendQueue'
import type {
  Finding,
  HealReport,
  LeaveConsequences,
  LeaveReport,
  NearbyReport,
  NetworkReport,
} from './network'
import type { SharedDataset, ShareRequest } from './sharing'
import type { NetworkMap } from './topology'

/** How often the node is asked whether it was accepted: as often as it asks itself. */
const ASK_AGAIN_MS = 2_000

const handOver = (dataset: string) => `/api/datasets/${encodeURIComponent(dataset)}/hand-over`
const queued = (append: string) => `/api/network/queue/${encodeURIComponent(append)}`
const sharing = (dataset: string) => `/api/datasets/${encodeURIComponent(dataset)}/sharing`

export const networkApi = {
  show: (signal?: AbortSignal) => json<NetworkReport>('GET', '/api/network', undefined, signal),
  map: (signal?: AbortSignal) => json<NetworkMap>('GET', '/api/network/map', undefined, signal),
  datasets: (signal?: AbortSignal) =>
    json<SharedDataset[]>('GET', '/api/network/datasets', undefined, signal),
  check: () => json<{ ok: boolean; findings: Finding[] }>('GET', '/api/network/check'),
  /** A text with which one node may join; the first founds a network. */
  invite: (seconds: number, admin: boolean) =>
    json<{ invite: string }>('POST', '/api/network/invites', { seconds, admin }),
  join: (invite: string) => json<NetworkReport>('POST', '/api/network/join', { invite }),
  /** Ask a node to be admitted, until its owner accepts this one or `signal` ends it. */
  async askToJoin(
    address: string,
    node: string,
    onWaiting: () => void,
    signal: AbortSignal,
  ): Promise<void> {
    for (;;) {
      try {
        await json('POST', '/api/network/join', { address, node }, signal)
        return
      } catch (error) {
        if (!(error instanceof ApiError) || error.code !== 'waiting-to-join') throw error
        onWaiting()
        await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS))
        signal.throwIfAborted()
      }
    }
  },
  /** The nodes that are announced on the local network. */
  nearby: (signal?: AbortSignal) =>
    json<NearbyReport>('GET', '/api/network/discover', undefined, signal),
  queue: (signal?: AbortSignal) =>
    json<QueuedAppend[]>('GET', '/api/network/queue', undefined, signal),
  /** Remove an append; with `forget` also one that may be committed. */
  removeAppend: (append: string, forget: boolean) =>
    json<unknown>('DELETE', `${queued(append)}?forget=${forget}`),
  retryAppend: (append: string) => json<unknown>('POST', `${queued(append)}/retry`),
  /** Let another node write a table, when an admin accepts that there. */
  handOver: (dataset: string, node: string) => json<unknown>('PUT', handOver(dataset), { node }),
  undoHandOver: (dataset: string) => json<unknown>('DELETE', handOver(dataset)),
  acceptHandOver: (dataset: string) => json<unknown>('POST', `${handOver(dataset)}/accept`, {}),
  accept: (fingerprint: string) => json<null>('POST', '/api/network/accept', { fingerprint }),
  revoke: (node: string) => json<null>('DELETE', `/api/network/nodes/${encodeURIComponent(node)}`),
  consequencesOfLeaving: (signal?: AbortSignal) =>
    json<LeaveConsequences>('GET', '/api/network/leave', undefined, signal),
  /** Leave; waits until others hold what this node does, 0 seconds for not at all. */
  leave: (waitSeconds: number, onReport: (report: LeaveReport) => void, signal: AbortSignal) =>
    reports('/api/network/leave', { waitSeconds }, onReport, signal),
  /** Repair the copies of a table, or of all. */
  heal: (dataset: string | null, onReport: (report: HealReport) => void, signal: AbortSignal) =>
    reports('/api/network/heal', { dataset }, onReport, signal),
  share: (dataset: string, request: ShareRequest) => json<null>('PUT', sharing(dataset), request),
  unshare: (dataset: string) => json<null>('DELETE', sharing(dataset)),
  fork: (dataset: string, name: string) =>
    json<{ id: string; name: string }>(
      'POST',
      `/api/datasets/${encodeURIComponent(dataset)}/fork`,
      { name },
    ),
}
