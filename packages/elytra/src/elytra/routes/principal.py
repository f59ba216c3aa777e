"""The authenticated principal of a request, from the scope that the gateway's middleware set."""

from __future__ import annotations

from fastapi import Request


def principal_of(request: Request) -> str:
    """Return the principal's name; empty when the application does not require authentication."""
    principal = getattr(request.state, "principal", None)
    return str(getattr(principal, "name", principal or ""))
