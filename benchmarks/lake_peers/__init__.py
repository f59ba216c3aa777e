"""Sections of `bench_lake_peers.py`."""
