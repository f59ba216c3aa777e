"""elytra.uploads: how bytes travel to a node.

Layering: progress <- sender (the client's side: parallel parts over HTTP); receiver (the node's
side: request bodies into the part store of `lake`). Neither knows the other.
"""
