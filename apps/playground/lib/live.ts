/**
 * The platform's tree, live: `/jobs` and `/datasets` of namespace `sys`.
 *
 * All tabs share the streams of one SharedWorker; browsers allow six connections to a server, which
 * a stream for each tab and path would use up. The browser sends the session's cookie by itself.
 */

import { LiveValues, openStream, sharedStreams, type LiveConnection } from '@sennit/elkyn/live'

const worker =
  typeof SharedWorker === 'undefined'
    ? null
    : new SharedWorker(new URL('../workers/live.worker.ts', import.meta.url), {
        name: 'sennit-live',
      })

/** The live values of this page. */
export const live = new LiveValues('/', {
  namespace: 'sys',
  streams: sharedStreams(worker, openStream),
})

/** Whether values are not updated, because of the network, the node or its permissions. */
export function isLost(connection: LiveConnection): connection is LostConnection {
  return connection.state === 'offline' || connection.state === 'refused'
}

/** Whether the node wants a token first. */
export function needsSignIn(connection: LiveConnection): boolean {
  return connection.state === 'refused' && connection.error.status === 401
}

type LostConnection = Extract<LiveConnection, { retryAtMs: number }>
