"""Replication: a leader sends the log of its durable writes, and followers apply it.

Layering: `messages`, `filtering` < `leader`, `follower` (the protocol as state machines,
without socket, clock or thread) < `store_adapters` < `link` (a thread that follows) <
`leader_writes` (the writes of an embedded follower). All of them know a store as `replicated_store`:
`elkyn.store` is above them. Above it, on a server: `snapshots`, `followers`, `follower_sessions`
(the leader's side), `leader_proxy` (the follower's side: forwards writes), `routes` (endpoints for
operators).
"""
