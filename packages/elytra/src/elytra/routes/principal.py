"""Who is asking, as the gateway's authentication left it in the request's scope."""

from __future__ import annotations

from fastapi import Request


def principal_of(request: Request) -> str:
    """Return the name of whoever sent the request; empty where nobody is asked to sign in."""
    principal = getattr(request.state, "principal", None)
    return str(getattr(principal, "name", principal or ""))
