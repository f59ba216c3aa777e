"""Ingest: an upload's bytes become Parquet shards.

Layering: `source` and `columns` stand alone; `sniff` uses `columns`; `shards` uses `statistics`;
`encode` (CSV) and `tables` (formats that carry types) use these; `worker` is the executor's entry.
"""
