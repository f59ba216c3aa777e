/** A small file to begin with, made on the spot: voyages of rope-laden ships, the same every time. */

const PORTS = [
  'Hobart',
  'Bergen',
  'Valparaíso',
  'Mombasa',
  'Dundee',
  'Nagasaki',
  'Lisbon',
  'Halifax',
]
const SHIPS = [
  'Marline',
  'Sheepshank',
  'Bowline',
  'Carrick',
  'Round Turn',
  'Half Hitch',
  'Fathom',
  'Lanyard',
]
const FIBRES = ['manila', 'hemp', 'sisal', 'coir', 'flax']
const DAY_MS = 86_400_000

export const SAMPLE_NAME = 'voyages.csv'
export const SAMPLE_ROWS = 20_000
export const SAMPLE_QUERY = `select fibre, count(*) as voyages, round(avg(days), 1) as mean_days,
       sum(coils) as coils
from voyages
group by fibre
order by coils desc`

/** The sample as CSV text; a pure function of the number of rows. */
export function sampleCsv(rows: number = SAMPLE_ROWS): string {
  const random = lehmer(1866)
  const pick = (from: readonly string[]) => from[Math.floor(random() * from.length)]!
  const lines = ['voyage,sailed,ship,departed,arrived,fibre,coils,days,knots,note']
  for (let voyage = 1; voyage <= rows; voyage += 1) {
    const sailed = new Date(Date.UTC(1866, 0, 1) + Math.floor(random() * 9_000) * DAY_MS)
      .toISOString()
      .slice(0, 10)
    const days = 4 + Math.floor(random() * random() * 120)
    const knots = (4 + random() * 9).toFixed(1)
    const note = random() < 0.04 ? `"becalmed, ${1 + Math.floor(random() * 9)} days"` : ''
    lines.push(
      [
        voyage,
        sailed,
        pick(SHIPS),
        pick(PORTS),
        pick(PORTS),
        pick(FIBRES),
        20 + Math.floor(random() * 700),
        days,
        knots,
        note,
      ].join(','),
    )
  }
  return `${lines.join('\n')}\n`
}

/** Park and Miller's minimal generator: the same numbers on every machine. */
function lehmer(seed: number): () => number {
  let state = seed
  return () => {
    state = (state * 48_271) % 2_147_483_647
    return state / 2_147_483_647
  }
}
