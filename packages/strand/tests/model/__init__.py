"""An explicit-state model checker, and Strand's lock-free protocol as its programs.

`steps` is the vocabulary, `machine` turns a program into a table of local states with a store
buffer, `explore` visits every interleaving. `words`, `producer`, `consumer` and `owners` are
`_ring.c` and the policies above it, function by function; `parties` casts them as processes and
`flaws` breaks them.
"""
