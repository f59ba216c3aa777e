"""Which datasets are shared, and how their versions spread and are adopted."""
