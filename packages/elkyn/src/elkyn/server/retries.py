"""Answers kept for a while, so that a write sent again under the same key is not done again.

They are kept in memory: a server that ends between the commit and the second try does the write
again. An Idempotency-Key counts for one namespace, one method and one path.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from elkyn.server.request import Response
from sennit_core.errors import UsageError

__all__ = ["Retries"]

SECONDS_MAX = 600.0
ENTRIES_MAX = 50_000
BYTES_MAX = 32 * 1024 * 1024

Key: TypeAlias = tuple[str, ...]


class _Kept(NamedTuple):
    fingerprint: bytes
    answer: asyncio.Future[Response]
    at: float


class Retries:
    """The answers of writes that came with a key; for one event loop."""

    def __init__(self, seconds: float = SECONDS_MAX) -> None:
        self._seconds = seconds
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._bytes = 0

    async def answer(
        self, key: Key, body: bytes, write: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Return what `write` answers, or what it answered the first time.

        Raises:
            UsageError: the key came with another body before.
        """
        loop = asyncio.get_running_loop()
        self._expire(loop.time())
        fingerprint = hashlib.sha256(body).digest()
        kept = self._kept.get(key)
        if kept is not None:
            if kept.fingerprint != fingerprint:
                raise UsageError("the Idempotency-Key was used with another body before")
            return await asyncio.shield(kept.answer)
        future: asyncio.Future[Response] = loop.create_future()
        self._kept[key] = _Kept(fingerprint, future, loop.time())
        try:
            response = await write()
        except BaseException as error:
            del self._kept[key]  # nothing was written: the next try is a first one
            future.set_exception(error)
            future.exception()  # nobody may wait for it
            raise
        future.set_result(response)
        self._bytes += len(response.body)
        return response

    def _expire(self, now: float) -> None:
        while self._kept:
            _key, oldest = next(iter(self._kept.items()))
            full = len(self._kept) >= ENTRIES_MAX or self._bytes > BYTES_MAX
            if not oldest.answer.done() or (now - oldest.at < self._seconds and not full):
                return
            self._kept.popitem(last=False)
            self._bytes -= len(oldest.answer.result().body)
