"""Datasets of other nodes, and statements whose parts run at other nodes or workers.

Nothing here knows the protocols of a network: `lake.peers` implements them, and sets the functions of
`remote_shards.RemoteShards` when the node joins a network.
"""
