import { roundTrip, summary, type NetworkNode } from '@/lib/network'
import { byZone, circle, shortName, type MapLink } from '@/lib/topology'

const RADIUS = 90
const DOT = 7
const LABEL_MAX = 12
/** More would be a ring of dots without room for their names; the tables have all of them. */
const SHOWN_MAX = 24
/** With more nodes the numbers would cover each other. */
const TRIPS_SHOWN_MAX = 12

const FILLS: Record<string, string> = {
  alive: 'fill-good',
  suspect: 'fill-warn',
  leaving: 'fill-warn',
  dead: 'fill-bad',
}

/** The nodes on a circle, this one at the top, with the connections between all of them. */
export function Topology({
  nodes,
  links,
}: {
  nodes: readonly NetworkNode[]
  links: readonly MapLink[]
}) {
  const shown = byZone(nodes, SHOWN_MAX)
  const places = circle(shown.length, RADIUS)
  const placeOf = new Map(shown.map(({ name }, index) => [name, places[index]]))
  const own = shown[0]?.name
  const drawn = links.flatMap((link) => {
    const [from, to] = [placeOf.get(link.nodes[0]), placeOf.get(link.nodes[1])]
    return from && to
      ? [{ link, from, to, isOwn: own !== undefined && link.nodes.includes(own) }]
      : []
  })
  return (
    <figure className="panel p-4" aria-label="Drawing of the network">
      <svg
        viewBox="-195 -120 390 240"
        role="img"
        aria-label={summary(nodes)}
        className="mx-auto block w-full max-w-lg"
      >
        {drawn.map(({ link, from, to, isOwn }) => (
          <line
            key={link.nodes.join()}
            x1={from.x}
            y1={from.y}
            x2={to.x}
            y2={to.y}
            className={isOwn ? 'stroke-ink-3' : 'stroke-line-strong'}
            strokeWidth={isOwn ? 1.5 : 1}
            strokeDasharray={link.relay === null ? undefined : '3 4'}
          />
        ))}
        {shown.length <= TRIPS_SHOWN_MAX &&
          drawn.map(({ link, from, to, isOwn }) => {
            const trip = roundTrip(link.rttSeconds)
            if (!isOwn || trip === null) return null
            // Nearer to the other node, where the lines from this one are apart.
            const share = link.nodes[0] === own ? 0.62 : 0.38
            return (
              <text
                key={link.nodes.join()}
                x={from.x + share * (to.x - from.x)}
                y={from.y + share * (to.y - from.y)}
                textAnchor="middle"
                dominantBaseline="central"
                className="fill-ink-2 stroke-surface text-[11px]"
                strokeWidth={4}
                paintOrder="stroke"
              >
                {trip}
              </text>
            )
          })}
        {shown.map((node, index) => {
          const place = places[index]
          if (!place) return null
          return (
            <g key={node.id}>
              <circle
                cx={place.x}
                cy={place.y}
                r={DOT}
                className={`${FILLS[node.state] ?? 'fill-surface'} stroke-ink-3`}
                strokeWidth={FILLS[node.state] ? 0 : 1.5}
              >
                <title>{`${node.name}: ${node.state}`}</title>
              </circle>
              <text
                x={place.labelX}
                y={place.labelY}
                textAnchor={place.anchor}
                dominantBaseline="central"
                className={`fill-ink text-[13px] ${index === 0 ? 'font-semibold' : ''}`}
              >
                {shortName(node.name, LABEL_MAX)}
              </text>
            </g>
          )
        })}
      </svg>
      <figcaption className="text-ink-3 mt-2 text-xs">
        Dashed connections go through a third node. Nodes of a zone are next to each other.
        {nodes.length > SHOWN_MAX && ` ${nodes.length - SHOWN_MAX} more nodes are in the table.`}
      </figcaption>
    </figure>
  )
}
