/**
 * The kernels of the engine over bytes in memory, for Node and for a worker of a page.
 *
 * @param load imports a module of the compiled package by its path.
 * @returns the result's rows for a kind of input.
 */
export async function kernels(load) {
  const { CsvReader } = await load('engine/csv.js')
  const { inferCsv, SAMPLE_BYTES } = await load('engine/csvSchema.js')
  const { PlanRun } = await load('engine/planRun.js')
  const { valueAt } = await load('engine/batch.js')
  const { readArrow } = await load('arrow/read.js')
  const PIECE = 4 << 20

  let schema = null // once for a dataset, as DuckDB is given its types

  function csv(bytes) {
    schema ??= inferCsv(bytes.subarray(0, SAMPLE_BYTES), bytes.length <= SAMPLE_BYTES)
    const { fields, start } = schema
    const read = PlanRun.inputOf(PLAN, fields)
    const run = new PlanRun(PLAN, read)
    const names = new Set(read.map(({ name }) => name))
    const reader = new CsvReader(fields, names, {}, 2, !run.keepsBatches)
    for (let at = start; at < bytes.length; at += PIECE)
      for (const batch of reader.add(bytes.subarray(at, at + PIECE))) run.add(batch)
    for (const batch of reader.finish()) run.add(batch)
    return run.finish()
  }

  function arrow(bytes) {
    const { fields, batches } = readArrow(bytes)
    const run = new PlanRun(PLAN, fields)
    for (const batch of batches(!run.keepsBatches)) run.add(batch)
    return run.finish()
  }

  return (kind, bytes) => {
    const { fields, columns, rows } = (kind === 'csv' ? csv : arrow)(bytes)
    return Array.from({ length: rows }, (_, row) =>
      fields.map(({ type }, at) => {
        const value = valueAt(columns[at], type, row)
        return typeof value === 'bigint' ? String(value) : value
      }),
    )
  }
}

const col = (name) => ({ col: name })
const call = (fn, ...args) => ({ fn, args })
const value = call('mul', col('price'), col('qty'))

/** The query of `data.py`. */
const PLAN = {
  op: 'aggregate',
  input: {
    op: 'filter',
    input: { op: 'scan', source: { dataset: 'rows' } },
    predicate: call(
      'and',
      call('gt', value, { lit: '500', type: 'Int64' }),
      call('ne', col('country'), { lit: 'US', type: 'Utf8' }),
    ),
  },
  keys: [{ name: 'country', expr: col('country') }],
  aggs: [
    { name: 'n', agg: { agg: 'count' } },
    { name: 'total', agg: { agg: 'sum', arg: value } },
    { name: 'weight', agg: { agg: 'sum', arg: col('weight') } },
    { name: 'mean', agg: { agg: 'avg', arg: col('price') } },
    { name: 'first', agg: { agg: 'min', arg: col('at') } },
    { name: 'last', agg: { agg: 'max', arg: col('at') } },
  ],
}
