"""Credentials that a follower does not know: its leader is asked, once each and not too often."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from elkyn.auth.throttle import Throttle
from elkyn.identity import Identity
from sennit_core.clock import Clock
from sennit_core.errors import Busy

__all__ = ["Ask", "LeaderCredentialCache"]

Ask = Callable[[str], Identity | None]
"""Says whose a credential is; None when it is not good. Waits for the answer of a leader."""

_REFUSED_MAX = 4096
_REFUSED_SECONDS = 10.0
_TEXT_CHARS_MAX = 16 * 1024
_HALF_SECONDS = 1.0  # after which half of the refusals are forgotten
_OF_CLIENT_MAX = 50
_OF_ALL_MAX = 400


class LeaderCredentialCache:
    """Asks a leader; safe for threads.

    Who shows credentials that are refused there, one after the other, is not asked about for a while.

    Args:
        ask: the leader.
        clock: tells how long a refusal is remembered.
    """

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._asked: dict[bytes, Future[Identity | None]] = {}
        self._of_client = Throttle(_OF_CLIENT_MAX, _HALF_SECONDS, clock)
        self._of_all = Throttle(_OF_ALL_MAX, _HALF_SECONDS, clock)

    def may_know(self, text: str, digest: bytes) -> bool:
        """Whether the leader may know a credential: it has not refused it a moment ago."""
        with self._lock:
            until = self._refused.get(digest, 0.0)
        return len(text) <= _TEXT_CHARS_MAX and self._clock.monotonic() >= until

    def identify(self, text: str, digest: bytes, client: str) -> Identity | None:
        """Ask the leader whose a credential is, or wait for an answer that is on its way.

        Raises:
            Unavailable: it does not answer.
            Busy: `client`, or all together, have shown too many that it refused.
        """
        with self._lock:
            answer = self._asked.get(digest)
            asking = answer is None
            if answer is None:
                if self._of_client.refuses(client) or self._of_all.refuses(""):
                    raise Busy("too many credentials that nobody knows; try again in a second")
                answer = self._asked[digest] = Future()
        if not asking:
            return answer.result()
        try:
            found = self._ask(text)
            if found is None:
                self._refuse(digest, client)
            answer.set_result(found)
        except BaseException as error:
            answer.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._asked[digest]
        return found

    def _refuse(self, digest: bytes, client: str) -> None:
        self._of_client.failed(client)
        self._of_all.failed("")
        with self._lock:
            self._refused[digest] = self._clock.monotonic() + _REFUSED_SECONDS
            while len(self._refused) > _REFUSED_MAX:
                self._refused.popitem(last=False)
