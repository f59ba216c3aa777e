"""The object store: immutable files named by the hash of their content, and the disk below them.

`durable` writes files atomically, `disk_space` and `reserve` bound what is written, `store` is the
object store, `retained` keeps objects that no snapshot references, `verification` checks what is read.
"""
