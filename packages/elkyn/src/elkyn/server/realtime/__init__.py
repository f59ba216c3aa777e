"""Realtime clients: event streams and WebSockets, and the fan-out of events to them.

Layering: `feed` < `hub` (one store's events to many clients) < `stream`, `subscribe` (event streams);
`wire` < `session` (the protocol as a state machine) < `socket_store` < `socket` < `connect`.
"""
