"""HTTP/1.1 of `elkyn serve`: the connection's protocol, its timeouts and limits, and the fast path."""
