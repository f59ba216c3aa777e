"""Trees from elsewhere and back: JSON, JSON Lines, SQLite, Redis.

A source yields values with the keys that lead to them, a target takes a tree apart the same way.
Keys that a tree cannot hold are escaped (`keys`). Layering: `keys` < `lines`, `sqlite`, `redis`.
"""
