"""SQL over datasets, inside executors: DuckDB, locked down, and EM-√ over the same shards.

Layering: `guard` decides what may run, `session` opens the database it runs in, `instance_cache`
keeps it for later queries, `failures` turns DuckDB's errors into Sennit's, `duckdb_worker` answers;
nothing else imports duckdb. `planning` makes a judged statement a plan of EM-√ and `external` runs
it. `worker` is the executor's entry to all.
"""
