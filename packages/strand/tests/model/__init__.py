"""An explicit-state model checker, and Strand's lock-free protocol as its programs.

`steps` is the vocabulary, `machine` compiles a program to a table of states with a store buffer,
`explore` visits every interleaving. `ring`, `producer` and `consumer` are `_ring.c`,
`_ring_producer.c` and `_ring_consumer.c`, function by function; `roles` is what the Python classes
add to them. `parties` casts them as processes, `scenarios` lets these meet, and `flaws` breaks the
protocol with the functions of `broken`.
"""
