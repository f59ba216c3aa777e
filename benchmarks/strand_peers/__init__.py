"""What `bench_strand.py` measures: one module for each row of the table, and how peers are driven.

`measure` runs one transport in two processes of its own, `tables` takes turns between peers and
prints; `jobs` holds the data, `standard`, `zeromq`, `fifo` and `iceoryx` open the peers.
"""
