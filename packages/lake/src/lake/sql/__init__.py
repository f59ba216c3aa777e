"""SQL over datasets, inside executors: DuckDB, locked down, and EM-√ over the same shards.

Layering: `guard` checks statements, `session` opens a locked database, `instance_cache` keeps it
for later queries, `failures` converts DuckDB's errors to Sennit's, `duckdb_worker` runs queries; no
other module imports duckdb. `planning` converts a checked statement to an EM-√ plan and `external`
runs it. `worker` is the executor's entry point.
"""
