"""Password hashing: argon2id (RFC 9106), on a few threads with a bounded queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sennit_core.errors import Busy, Unsupported
from sennit_core.extras import install_hint

__all__ = ["PASSWORD_MAX", "PASSWORD_MIN", "BoundedPool", "Passwords"]

T = TypeVar("T")

PASSWORD_MIN = 6
PASSWORD_MAX = 4096
# OWASP's recommendation for argon2id: 19 MiB of memory, two iterations, one lane.
_COST: dict[str, Any] = {"time_cost": 2, "memory_cost": 19456, "parallelism": 1}


class Passwords:
    """Hashes passwords; thread-safe. A hash costs about 20 ms and 19 MiB.

    Raises:
        Unsupported: argon2 is not installed; raised on first use.
    """

    def __init__(self) -> None:
        self._hasher: Any = None
        # Verified where there is no hash; made with the same cost on first use.
        self._dummy_hash = ""
        self._lock = threading.Lock()

    def hash(self, password: str) -> str:
        """Return the encoded hash, including its salt and parameters."""
        return str(self._open().hash(password.encode(errors="surrogatepass")))

    def verify(self, stored: str | None, password: str) -> bool:
        """Whether `password` matches; as slow without a stored hash (None), to hide that."""
        hasher = self._open()
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            hasher.verify(stored or self._dummy_hash, password.encode(errors="surrogatepass"))
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether `stored` has other parameters than the current ones."""
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
                self._dummy_hash = self._hasher.hash("a dummy password")
            return self._hasher


class BoundedPool:
    """A thread pool with a bounded queue, for work that would block an event loop.

    Args:
        name: the prefix of the threads' names.
        workers: the number of threads.
        waiting_max: the maximum number of running and waiting calls; more are refused with `Busy`.
    """

    def __init__(self, name: str, workers: int, waiting_max: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._places = threading.BoundedSemaphore(waiting_max)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run `function` on one of the threads and return its result.

        Raises:
            Busy: the queue is full.
        """
        if not self._places.acquire(blocking=False):
            raise Busy("too many sign-ins are waiting; try again in a second")
        try:
            work = self._pool.submit(function, *arguments)
        except BaseException:
            self._places.release()
            raise
        # Not when the caller stops waiting: a cancelled request still occupies its thread.
        work.add_done_callback(lambda _work: self._places.release())
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Let running calls finish, cancel waiting ones."""
        self._pool.shutdown(wait=True, cancel_futures=True)
