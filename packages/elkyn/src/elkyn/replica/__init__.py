"""Stores that follow another one: the protocol, both of its ends, and the link between them."""
