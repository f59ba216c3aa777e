"""Whether a request is one of the node's owner on the node's machine, who alone names its files."""

from __future__ import annotations

import ipaddress

from fastapi import Request

from lake.routes.requester import requester_of
from sennit_core.errors import Denied

__all__ = ["check_owner"]

_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def check_owner(request: Request, action: str) -> None:
    """Refuse all but the owner, on this machine.

    A proxy on this machine would make every client local, so a forwarded request is refused. So is
    the browser's cookie, which the browser also sends for scripts of the node's pages.

    Args:
        request: The request.
        action: What it does, for the error.

    Raises:
        Denied: It is another one.
    """
    headers = request.headers
    is_direct = not any(name in headers for name in _FORWARDED)
    has_token = headers.get("authorization", "").lower().startswith("bearer ")
    if not (is_direct and has_token and _is_loopback(request)):
        raise Denied(action, needed="a request with the admin token from the node's own machine")
    if not requester_of(request).is_owner:
        raise Denied(action, needed="the admin token of the node's data folder")


def _is_loopback(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
