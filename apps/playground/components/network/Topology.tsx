import { circle, roundTrip, shortName, summary, type NetworkNode } from '@/lib/network'

const RADIUS = 90
const DOT = 7
const LABEL_MAX = 12
/** More would be a ring of dots without room for their names; the table has all of them. */
const SHOWN_MAX = 24

const FILLS: Record<string, string> = {
  alive: 'fill-good',
  suspect: 'fill-warn',
  leaving: 'fill-warn',
  dead: 'fill-bad',
}

/** The nodes on a circle, this one at the top, with the round trips from here. */
export function Topology({ nodes }: { nodes: readonly NetworkNode[] }) {
  const shown = nodes.slice(0, SHOWN_MAX)
  const places = circle(shown.length, RADIUS)
  const own = places[0]
  return (
    <figure className="panel p-4" aria-label="Drawing of the network">
      <svg
        viewBox="-195 -120 390 240"
        role="img"
        aria-label={summary(nodes)}
        className="mx-auto block w-full max-w-lg"
      >
        {shown.map((node, index) => {
          const place = places[index]
          if (index === 0 || !own || !place) return null
          const trip = node.state === 'alive' ? roundTrip(node.rttSeconds) : null
          return (
            <g key={node.id}>
              <line
                x1={own.x}
                y1={own.y}
                x2={place.x}
                y2={place.y}
                className={trip === null ? 'stroke-line' : 'stroke-line-strong'}
                strokeWidth={1.5}
                strokeDasharray={trip === null ? '3 4' : undefined}
              />
              {trip !== null && (
                <text
                  x={own.x + 0.62 * (place.x - own.x)}
                  y={own.y + 0.62 * (place.y - own.y)}
                  textAnchor="middle"
                  dominantBaseline="central"
                  className="fill-ink-2 stroke-surface text-[11px]"
                  strokeWidth={4}
                  paintOrder="stroke"
                >
                  {trip}
                </text>
              )}
            </g>
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
        Round trips are measured from this node.
        {nodes.length > SHOWN_MAX && ` ${nodes.length - SHOWN_MAX} more nodes are in the table.`}
      </figcaption>
    </figure>
  )
}
