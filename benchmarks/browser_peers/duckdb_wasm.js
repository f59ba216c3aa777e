/** DuckDB compiled to WebAssembly, as a page has it: `start`, and then `query` as often as asked. */

import * as duckdb from '/wasm/duckdb-browser.mjs'

export async function start(path) {
  const worker = new Worker('/wasm/duckdb-browser-eh.worker.js')
  const database = new duckdb.AsyncDuckDB(new duckdb.VoidLogger(), worker)
  await database.instantiate('/wasm/duckdb-eh.wasm')
  const bytes = new Uint8Array(await (await fetch(path)).arrayBuffer())
  await database.registerFileBuffer('rows.csv', bytes)
  const connection = await database.connect()
  return async (sql) => (await connection.query(sql)).toArray().map((row) => row.toArray().map(String))
}
