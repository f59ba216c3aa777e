"""lake.peers: a network of nodes, and what they exchange.

Layering, from the bottom:

    transport       identities, channels, sessions, relays; what a state machine of a protocol is
    members         who belongs to the network, who is alive, and where they are reached
    copies          placement, transfer and repair of objects
    sharing         what is shared, how its versions spread, and their adoption
    changes, handovers, queries, jobs    what nodes do for each other with shared datasets
    sql             plans queries over shards of several nodes
    codec, data, exchange <- joined <- service    put it together; the gateway opens a `PeerService`

Protocols are state machines without clock, thread or I/O (`transport.machine`).
Nothing is imported here: `import lake` needs neither websockets nor cryptography (the extra `peers`).
"""
