"""The server: Firebase's REST protocol and event streams over stores.

Layering: `request` < `handle` (pure: a request and a store in, a response out) < `committer`, `stream`
< `app` (raw ASGI) < `serve` (uvicorn). Only `serve` needs the extra `server`.
"""
