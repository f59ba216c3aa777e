"""Passwords: argon2id (RFC 9106), on a few threads, with a queue that ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sennit_core.errors import Busy, Unsupported
from sennit_core.extras import install_hint

__all__ = ["PASSWORD_MAX", "PASSWORD_MIN", "Lane", "Passwords"]

T = TypeVar("T")

PASSWORD_MIN = 6
PASSWORD_MAX = 4096
_COST: dict[str, Any] = {"time_cost": 2, "memory_cost": 19456, "parallelism": 1}


class Passwords:
    """Hashes passwords; safe for threads. One hash takes about 20 ms and 19 MiB.

    Raises:
        Unsupported: argon2 is not installed, at the first use.
    """

    def __init__(self) -> None:
        self._hasher: Any = None
        self._nobody = ""
        self._lock = threading.Lock()

    def hash(self, password: str) -> str:
        """Return the hash with its salt and parameters in it."""
        return str(self._open().hash(password.encode(errors="surrogatepass")))

    def verify(self, stored: str | None, password: str) -> bool:
        """Whether `password` is the one; takes as long when there is none (`stored` is None)."""
        hasher = self._open()
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            hasher.verify(stored or self._nobody, password.encode(errors="surrogatepass"))
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether `stored` was made with other parameters than today's."""
        return bool(self._open().check_needs_rehash(stored))

    def _open(self) -> Any:
        with self._lock:
            if self._hasher is None:
                try:
                    from argon2 import PasswordHasher
                except ImportError:
                    hint = install_hint("sennit-elkyn", "argon2-cffi")
                    raise Unsupported("passwords need argon2-cffi", hint=hint) from None
                self._hasher = PasswordHasher(**_COST)
                self._nobody = self._hasher.hash("nobody's password")
            return self._hasher


class Lane:
    """A few threads for work that must not hold up an event loop.

    Args:
        name: of the threads.
        workers: how many threads.
        waiting_max: how much work may run or wait; more is refused with `Busy`.
    """

    def __init__(self, name: str, workers: int, waiting_max: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._places = threading.BoundedSemaphore(waiting_max)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what `function` returns on one of the threads.

        Raises:
            Busy: too much waits already.
        """
        if not self._places.acquire(blocking=False):
            raise Busy("too many sign-ins are waiting; try again in a second")
        try:
            work = self._pool.submit(function, *arguments)
        except BaseException:
            self._places.release()
            raise
        work.add_done_callback(lambda _work: self._places.release())
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Let what runs finish, drop what waits."""
        self._pool.shutdown(wait=True, cancel_futures=True)
