import { StateChip } from '@/components/ui/StateChip'
import { roundTrip, type NetworkNode } from '@/lib/network'

/** Every node with its state, where it is, and what this node cannot do with it. */
export function NodeTable({ nodes, own }: { nodes: readonly NetworkNode[]; own: string }) {
  return (
    <section aria-labelledby="nodes" className="min-w-0">
      <h2 id="nodes" className="eyebrow mb-2">
        Nodes
      </h2>
      <div className="panel overflow-x-auto" role="group" aria-label="Nodes" tabIndex={0}>
        <table className="table">
          <thead>
            <tr>
              <th scope="col">Node</th>
              <th scope="col">State</th>
              <th scope="col">Zone</th>
              <th scope="col">Address</th>
              <th scope="col" className="number">
                Round trip
              </th>
              <th scope="col">Not possible together</th>
            </tr>
          </thead>
          <tbody>
            {nodes.map((node) => (
              <tr key={node.id} className="hover:bg-hover">
                <td className="max-w-44 min-w-28 [overflow-wrap:anywhere]">
                  <span className="font-semibold" title={node.id}>
                    {node.name}
                  </span>{' '}
                  <span className="text-ink-3 text-xs">
                    {[node.id === own && 'this node', node.admin && 'admin']
                      .filter(Boolean)
                      .join(', ')}
                  </span>
                </td>
                <td>
                  <StateChip state={node.state} />
                </td>
                <td className="text-ink-2">{node.zone ?? '–'}</td>
                <td className="text-ink-2 whitespace-nowrap">
                  {node.addresses.length > 0 ? (
                    node.addresses.map((address) => <div key={address}>{address}</div>)
                  ) : (
                    <span title="It connects to others, also through a third node">
                      only connects
                    </span>
                  )}
                </td>
                <td className="number">{roundTrip(node.rttSeconds) ?? '–'}</td>
                <td className={node.cannot.length > 0 ? 'text-warn' : 'text-ink-3'}>
                  {node.cannot.join(', ') || '–'}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  )
}
