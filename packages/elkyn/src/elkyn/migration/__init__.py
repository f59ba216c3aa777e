"""Import and export of trees: JSON, JSON Lines, SQLite, Redis.

A source yields values with their paths, and a target receives them in the same form. Keys that a tree
cannot hold are escaped (`keys`). Layering: `keys` < `lines`, `sqlite`, `redis`.
"""
