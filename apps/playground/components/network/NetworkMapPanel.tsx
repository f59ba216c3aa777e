'use client'

import { useEffect, useMemo, useState } from 'react'

import { SearchField } from '@/components/ui/SearchField'
import { Failed, Loading } from '@/components/ui/States'
import { useResource } from '@/lib/hooks'
import { matches, roundTrip, type NetworkNode } from '@/lib/network'
import { networkApi } from '@/lib/networkApi'
import { bySlowness, type MapLink, type NetworkMap } from '@/lib/topology'

import { SectionTitle } from './SectionTitle'
import { Topology } from './Topology'

/** Every node is asked each time, so this is less often than the rest of the page. */
const EVERY_MS = 20_000
const SEARCHED_MIN = 8
/** What a browser renders at once; the search finds the others. */
const ROWS_MAX = 100
const NONE: MapLink[] = []

/** The connections between all nodes: a drawing, and the same as a table. */
export function NetworkMapPanel({ nodes }: { nodes: readonly NetworkNode[] }) {
  const map = useResource('map', networkApi.map, EVERY_MS)
  const { reload } = map
  // Another state of a node means other connections.
  const states = nodes.map(({ id, state }) => `${id} ${state}`).join()
  useEffect(() => reload(), [states, reload])
  const [search, setSearch] = useState('')
  const all = map.state === 'ready' ? map.data.links : NONE
  // Of a hundred nodes there are thousands.
  const links = useMemo(() => bySlowness(all), [all])
  const found = links.filter((link) => matches([...link.nodes, wayOf(link)], search))
  return (
    <section aria-labelledby="map" className="min-w-0">
      <SectionTitle id="map" title="Connections">
        {links.length >= SEARCHED_MIN && (
          <>
            <span role="status" className="text-ink-3 text-xs">
              {search.trim() !== '' && `${found.length} of ${links.length}`}
            </span>
            <SearchField label="Search connections" value={search} onChange={setSearch} />
          </>
        )}
      </SectionTitle>
      <div className="grid items-start gap-4 lg:grid-cols-2">
        <Topology nodes={nodes} links={links} />
        {map.state === 'loading' && (
          <div className="panel">
            <Loading rows={4} label="Asking every node for its connections" />
          </div>
        )}
        {map.state === 'failed' && (
          <Failed
            title="The connections are not known"
            message={map.error.message}
            hint={map.error.hint}
            onRetry={reload}
          />
        )}
        {map.state === 'ready' && <Links links={found} map={map.data} />}
      </div>
    </section>
  )
}

function Links({ links, map }: { links: readonly MapLink[]; map: NetworkMap }) {
  const silent = map.nodes.filter(({ problem }) => problem !== null)
  return (
    <div className="panel panel-long" role="group" aria-label="Connections" tabIndex={0}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">Between</th>
            <th scope="col" className="number">
              Round trip
            </th>
            <th scope="col">Way</th>
          </tr>
        </thead>
        <tbody>
          {links.slice(0, ROWS_MAX).map((link) => (
            <tr key={link.nodes.join()} className="hover:bg-hover">
              <td>{link.nodes.join(' – ')}</td>
              <td className="number">{roundTrip(link.rttSeconds) ?? '–'}</td>
              <td className={link.relay === null ? 'text-ink-2' : 'text-warn'}>{wayOf(link)}</td>
            </tr>
          ))}
          {links.length === 0 && (
            <tr>
              <td colSpan={3} className="text-ink-2">
                {map.links.length === 0
                  ? 'No node is connected to another one.'
                  : 'No connection matches the search.'}
              </td>
            </tr>
          )}
        </tbody>
      </table>
      {links.length > ROWS_MAX && (
        <p className="text-ink-2 px-5 py-2 text-xs">
          The {ROWS_MAX} slowest are shown; {links.length - ROWS_MAX} more: search for them.
        </p>
      )}
      {silent.map(({ name, problem }) => (
        <p key={name} className="text-warn border-line border-t px-5 py-2 text-xs">
          {name} did not say what it is connected to: {problem}
        </p>
      ))}
    </div>
  )
}

function wayOf({ relay }: MapLink): string {
  return relay === null ? 'direct' : `through ${relay}`
}
