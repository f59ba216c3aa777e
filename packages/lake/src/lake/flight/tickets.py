"""Tickets for results: the statement itself, signed, for one caller and a short time.

A ticket needs no memory in the server until it is used. It cannot be made or changed by a client
(HMAC-SHA256 with a key of this process), and another caller cannot use it.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import OrderedDict

from lake.flight.messages import StatementTicket
from lake.flight.protobuf import decode, encode
from sennit_core.errors import Denied, NotFound, UsageError

__all__ = ["Tickets"]

_SECONDS = 300
"""A client fetches a result right after it has its ticket."""
_SPENT_MAX = 100_000
_SIGNATURE_BYTES = 32


class Tickets:
    """Issues tickets, and checks those that clients send."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        # Tickets of changes that were used: nonce to expiry, the oldest first. gRPC clients and
        # proxies may repeat a read, which must not repeat a change.
        self._spent: OrderedDict[bytes, int] = OrderedDict()

    def issue(self, caller: bytes, query: str, params: bytes | None) -> tuple[bytes, int]:
        """Return a new ticket and the time of its expiry."""
        expires = int(time.time()) + _SECONDS
        body = encode(StatementTicket(query, params, caller, secrets.token_bytes(16), expires))
        return self._signature(body) + body, expires

    def open(self, caller: bytes, ticket: bytes, *, expired: bool = False) -> StatementTicket:
        """Return the contents of a ticket.

        Args:
            caller: The digest of the credential that wants to use it.
            ticket: As a client sent it.
            expired: Whether it may have expired: a query may be cancelled at any time.

        Raises:
            Denied: It was not issued by this process, or to another caller.
            NotFound: It has expired.
        """
        signature, body = ticket[:_SIGNATURE_BYTES], ticket[_SIGNATURE_BYTES:]
        # Before anything else looks at the body.
        if not hmac.compare_digest(signature, self._signature(body)):
            raise Denied("using this ticket", hint="it was not issued by this node since its start")
        found = decode(StatementTicket, body)
        if found.caller != caller:
            raise Denied("using this ticket", hint="it was issued to another token")
        assert found.expires is not None
        if not expired and found.expires < time.time():
            raise NotFound(
                "ticket", hint=f"a ticket is valid for {_SECONDS} s; run the query again"
            )
        return found

    def spend(self, ticket: StatementTicket) -> None:
        """Mark the ticket of a change as used.

        Raises:
            UsageError: It has been used before.
        """
        assert ticket.nonce is not None
        assert ticket.expires is not None
        now = time.time()
        with self._lock:
            if ticket.nonce in self._spent:
                raise UsageError("this statement has been run", hint="execute the statement again")
            while self._spent and (
                next(iter(self._spent.values())) < now or len(self._spent) >= _SPENT_MAX
            ):
                self._spent.popitem(last=False)
            self._spent[ticket.nonce] = ticket.expires

    def _signature(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")
