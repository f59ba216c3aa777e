"""Tasks of jobs at the nodes that hold their shards."""
