"""Ingest: convert an upload to Parquet shards.

Layering: `source` and `columns` are independent; `sniff` uses `columns`; `shards` uses
`statistics`; `encode` (CSV) and `tables` (typed formats) use these; `worker` is the executor's
entry point.
"""
