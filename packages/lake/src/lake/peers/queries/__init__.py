"""Queries over shards of several nodes: parts at their holders, and restricted datasets at their writers.

`lake.peers.sql` plans them.
"""
