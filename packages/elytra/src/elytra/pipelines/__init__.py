"""Fluent pipelines: plans that are built verb by verb, and run on a node."""
