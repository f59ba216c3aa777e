"""Writes with an Idempotency-Key: a retry with the same key is not executed again.

The receipt of a write is stored in the write's own transaction, so that a crash leaves both or
neither, and is replicated with the log, so that a promoted follower has it. A key is valid for one
namespace, method, path and principal (a user, with any of its tokens), for an hour; a store keeps the
newest 20,000 receipts, in 32 MiB.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from elkyn.auth.principal import Principal
from elkyn.server.request import Call
from elkyn.storage.receipts import IdempotencyKey, Receipt
from elkyn.storage.transactions import ReadTransaction
from elkyn.storage.writer import Write
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Conflict, UsageError

__all__ = ["AlreadyExecuted", "keep_receipt", "replay_receipt"]


@dataclass(eq=False)
class AlreadyExecuted(Conflict):
    """A write was executed before with the same key, with result `receipt`; never sent to clients."""

    message: str = field(default="", kw_only=True)
    receipt: Receipt

    def describe(self) -> str:
        """Name the position of the first execution."""
        return f"the write was executed before, at position {self.receipt.position}"


def keep_receipt(
    write: Write, call: Call, body: bytes, principal: Principal, clock: Clock = SYSTEM
) -> None:
    """Make `write` execute once, however often it is sent with the key of `call`.

    Args:
        write: is extended by a check that runs before its own.
        call: has a `retry_key`.
        body: identifies the write: another body with the same key is refused.
        principal: the client.
        clock: the time for the expiry of keys.
    """
    principal_key = "admin" if principal.admin else f"uid {principal.uid}"
    named = "\0".join((call.method, call.path, call.retry_key or "", principal_key))
    digest = hashlib.sha256(named.encode(errors="surrogatepass")).digest()[:16]
    fingerprint = hashlib.sha256(body).digest()[:16]
    check = write.check

    def check_unused(view: ReadTransaction) -> None:
        # Inside the write's transaction: of two requests with one key in the same group the second
        # one finds the receipt of the first.
        receipt = view.tree.receipts.get(digest, int(clock.now() * 1000))
        if receipt is not None:
            if receipt.fingerprint != fingerprint:
                raise UsageError("the Idempotency-Key was used before with another body")
            # An error, because a write that is refused leaves no trace; `replay_receipt` makes it a
            # result.
            raise AlreadyExecuted(receipt)
        if check is not None:
            check(view)

    write.check, write.idempotency_key = check_unused, IdempotencyKey(digest, fingerprint)


def replay_receipt(write: Write) -> None:
    """Replace the error of a repeated write by the result of its first execution."""
    if isinstance(write.error, AlreadyExecuted):
        receipt = write.error.receipt
        write.error = None
        write.base, write.values, write.position = receipt.base, receipt.places, receipt.position
