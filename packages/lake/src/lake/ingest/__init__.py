"""Ingest: convert an upload to Parquet shards.

Layering: `source` and `columns` are independent; `sniff` uses `columns`; `shards` uses
`statistics`; `encode` (CSV) uses these; `job` is what every format's ingest gets; `tables` (typed
formats) uses it, and `json_table` uses both; `worker` is the executor's entry point.
"""
