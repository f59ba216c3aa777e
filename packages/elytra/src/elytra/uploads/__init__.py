"""elytra.uploads: the transfer of files to a node.

Layering: progress <- sender (the client's side: parallel parts over HTTP); receiver (the node's
side: request bodies into the part store of `lake`). Neither imports the other.
"""
