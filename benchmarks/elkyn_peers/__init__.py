"""Servers that a served tree is measured beside, and the load that is put on them."""
