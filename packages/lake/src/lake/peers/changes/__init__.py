"""Changes of a dataset at other nodes than its writer: sent there, and made there once."""
