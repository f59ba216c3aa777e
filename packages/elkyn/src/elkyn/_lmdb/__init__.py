"""The storage layer, the only place that knows LMDB: rows and environment, then tree and overlay."""
