"""What `bench_browser.py` measures: the engine of `@sennit/elytra`, and DuckDB as its peer."""
