"""Peers: nodes that hold shards of the same datasets. `sql` plans queries over them."""
