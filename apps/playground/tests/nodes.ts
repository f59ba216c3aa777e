import type { NetworkNode, NetworkReport } from '../lib/network'

/** A node for tests. */
export const node = (
  name: string,
  state: string,
  rest: Partial<NetworkNode> = {},
): NetworkNode => ({
  id: name,
  name,
  fingerprint: `${name}-fingerprint`,
  admin: false,
  state,
  since: 0,
  heardAt: null,
  addresses: [],
  zone: null,
  version: null,
  capacityBytes: null,
  usedBytes: null,
  rttSeconds: null,
  connection: null,
  cannot: [],
  ...rest,
})

/** A connection for tests. */
export const connection = (sentBytes = 0, receivedBytes = 0, relay: string | null = null) => ({
  connection: { relay, sentBytes, receivedBytes },
})

/** A report of a node for tests. */
export const report = (time: number, nodes: NetworkNode[]): NetworkReport => ({
  time,
  network: 'n',
  revoked: false,
  mayManage: true,
  discovers: false,
  mayWrite: true,
  node: { id: 'a', name: 'a', fingerprint: '', port: null },
  nodes,
  waiting: [],
})
