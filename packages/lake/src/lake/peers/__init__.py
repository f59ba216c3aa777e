"""lake.peers: a network of nodes, and what they exchange.

Layering, from the bottom:

    identity, signed, messages           keys, statements, and messages as bytes
    roster, invites, statuses, store     who belongs to the network, and what a node keeps of it
    channel <- session <- relay <- network        connections
    announcements <- hints, discovery    addresses that are announced on the local network
    machine <- membership, publications, placement, replication, transfers, dispatch, forwarding
                                         protocols as state machines: no clock, no thread, no I/O
    joining, change_server, changes, exchange <- joined <- service   run them; the gateway opens a `PeerService`
    sql                                  plans queries over shards of several nodes

Nothing is imported here: `import lake` needs neither websockets nor cryptography (the extra `peers`).
"""
