"""Replication: the protocol, its leader and follower sides, and the link between them."""
