"""The server: Firebase's REST protocol, event streams and WebSockets over stores.

A PUT on the fast path of `elkyn serve` passes these files:

    http/protocol        bytes to heads and bodies, limits of the connection
    http/request_head    refuses a head that could be read in two ways
    http/request_cycle   one request of a connection
    http/fast_path       all requests of one iteration of the event loop together
    state                limits, the namespace's store
    auth_backend         credential to principal to authorizer (`elkyn.auth`)
    bodies/memory        a limit on the memory of bodies
    request              the parameters of the call
    bodies/codec         JSON to a value and back
    handle               the call to a `Write`, and its result to a response
    committer            group commit on its own thread (`elkyn.storage.writer`)
    responses            status, headers, JSON
    asgi                 the head as bytes

Without the fast path `app` is called, between uvicorn's ASGI cycle and `state`. Both use the same
functions of `state`, `handle` and `committer`.

Layering: `request` < `handle` (pure: a request and a store in, a response out) < `committer` <
`realtime` (streams, sockets) < `state` (what the parts share) < `admin`, `routes` < `app` (raw ASGI) <
`http` (connections and the fast path) < `protocols` < `serve` (uvicorn). Only `http`, `protocols` and
`serve` need the extra `server`.
"""
