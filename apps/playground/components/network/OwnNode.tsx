import type { NetworkReport } from '@/lib/network'

/** What others need to recognize this node. */
export function OwnNode({ node }: { node: NetworkReport['node'] }) {
  return (
    <section aria-labelledby="own-node">
      <h2 id="own-node" className="eyebrow mb-2">
        This node
      </h2>
      <dl className="panel grid gap-x-6 gap-y-1 px-5 py-4 sm:grid-cols-[max-content_minmax(0,1fr)]">
        <dt className="text-ink-2">Name</dt>
        <dd className="font-semibold">{node.name}</dd>
        <dt className="text-ink-2">Fingerprint</dt>
        <dd>
          <code className="font-mono break-all">{node.fingerprint}</code>
          <p className="text-ink-3 text-xs">Read it out to the person who accepts this node.</p>
        </dd>
        <dt className="text-ink-2">Id</dt>
        <dd>
          <code className="font-mono text-xs break-all">{node.id}</code>
        </dd>
      </dl>
    </section>
  )
}
