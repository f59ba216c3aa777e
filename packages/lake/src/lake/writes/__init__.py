"""Statements that change datasets: run in executors, and committed here as snapshots."""
