"""The client of a node: transport, datasets, uploads, jobs and their results."""
