"""The server: Firebase's REST protocol and event streams over stores.

Layering: `request` < `handle` (pure: a request and a store in, a response out) < `committer`, `stream`
< `app` (raw ASGI) < `plain` (requests without ASGI) < `http_protocol` < `protocols` < `serve` (uvicorn).
Only the last three need the extra `server`.
"""
