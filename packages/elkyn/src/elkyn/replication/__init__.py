"""Replication: a leader sends the log of its durable writes, and followers apply it.

Layering: `messages`, `filtering` < `leader`, `follower` (the protocol as state machines,
without socket, clock or thread) < `snapshots`, `store_adapters` < `link` (a thread that follows) <
`replica` (an embedded follower). On a server: `followers`, `follower_sessions` (the leader's side),
`leader_proxy` (the follower's side: forwards writes), `routes` (endpoints for operators).
"""
