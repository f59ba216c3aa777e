"""Writes that come with an Idempotency-Key: sent again under the same key, they are not done again.

What a write has done is kept in its own transaction, so that a crash of the server leaves both or
neither, and travels with the log, so that a follower that is promoted knows it. A key counts for one
namespace, method, path and caller, for an hour; a store remembers the newest 20,000 of them, in 32 MiB.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from elkyn._lmdb.receipts import Once, Receipt
from elkyn.identity import Identity
from elkyn.server.request import Call
from elkyn.txn import ReadTransaction
from elkyn.writer import Write
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Conflict, UsageError

__all__ = ["Repeated", "keep_receipt", "replay_receipt"]


@dataclass(eq=False)
class Repeated(Conflict):
    """A write was done before, under the same key: `receipt` says what it did; never answered."""

    message: str = field(default="", kw_only=True)
    receipt: Receipt

    def describe(self) -> str:
        """Say where it was done."""
        return f"the write was done before, at position {self.receipt.position}"


def keep_receipt(
    write: Write, call: Call, body: bytes, identity: Identity, clock: Clock = SYSTEM
) -> None:
    """Have `write` done once, however often it is sent with the key of `call`.

    Args:
        write: gets a check before its own.
        call: has a `retry_key`.
        body: tells whether it is the same write.
        identity: who sends it.
        clock: tells how old a key is.
    """
    who = "admin" if identity.admin else f"uid {identity.uid}"
    named = "\0".join((call.method, call.path, call.retry_key or "", who))
    digest = hashlib.sha256(named.encode(errors="surrogatepass")).digest()[:16]
    fingerprint = hashlib.sha256(body).digest()[:16]
    check = write.check

    def once(view: ReadTransaction) -> None:
        receipt = view.tree.receipts.get(digest, int(clock.now() * 1000))
        if receipt is not None:
            if receipt.fingerprint != fingerprint:
                raise UsageError("the Idempotency-Key was used with another body before")
            raise Repeated(receipt)
        if check is not None:
            check(view)

    write.check, write.once = once, Once(digest, fingerprint)


def replay_receipt(write: Write) -> None:
    """Make a write that was done before look as it did the first time."""
    if isinstance(write.error, Repeated):
        receipt = write.error.receipt
        write.error = None
        write.base, write.values, write.position = receipt.base, receipt.places, receipt.position
