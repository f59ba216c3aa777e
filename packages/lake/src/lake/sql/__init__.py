"""SQL over datasets: DuckDB inside an executor, locked down.

Layering: `guard` decides what may run, `session` opens the database it runs in, `failures` turns
DuckDB's errors into Sennit's; `worker` is the executor's entry. Nothing else imports duckdb.
"""
