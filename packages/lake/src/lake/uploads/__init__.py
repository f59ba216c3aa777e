"""lake.uploads: files on their way into the lake, until an ingest has read them.

Layering: upload (the record of an upload) <- parts (the part store).
"""
