"""What the engine's benchmarks share: TPC-H's data, its queries, and tables of raced rows."""
