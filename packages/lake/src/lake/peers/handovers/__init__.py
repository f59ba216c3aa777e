"""The writer of a dataset hands writing over to another node."""
