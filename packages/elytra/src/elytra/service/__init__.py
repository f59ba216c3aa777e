"""Jobs of a node: split, scheduled, run on backends and recorded."""
