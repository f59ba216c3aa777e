"""lake.uploads: files on their way into the lake, until an ingest has read them.

Layering: upload (the record of an upload), table (its row in the tree) <- parts (the part store) <-
receiver (request bodies into the part store); forms reads multipart bodies and imports none of
them. `lake.routes.uploads` serves them over HTTP.
"""
