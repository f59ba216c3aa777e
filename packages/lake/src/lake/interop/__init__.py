"""Views of snapshots in the formats of other systems. Derived: the lake's own manifests are the truth."""
