"""elytra.uploads: the client's side of an upload: a file as parallel parts over HTTP.

Layering: progress <- sender. The node's side is `lake.uploads`.
"""
