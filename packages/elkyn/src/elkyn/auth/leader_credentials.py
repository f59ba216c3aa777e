"""Credentials unknown to a follower: it asks its leader once for each, at a limited rate."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from elkyn.auth.principal import Principal
from elkyn.auth.throttle import Throttle
from sennit_core.clock import Clock
from sennit_core.errors import Busy

__all__ = ["Ask", "LeaderCredentialCache"]

Ask = Callable[[str], Principal | None]
"""Returns the principal of a credential, None for an invalid one; blocks until the leader answers."""

_REFUSED_MAX = 4096
# A key that is created at the leader now is accepted here within this time, even if it was tried
# before.
_REFUSED_SECONDS = 10.0
_TEXT_CHARS_MAX = 16 * 1024
_HALF_SECONDS = 1.0  # half-life of the counters of refusals
_OF_CLIENT_MAX = 50
_OF_ALL_MAX = 400


class LeaderCredentialCache:
    """Asks a leader, and caches its refusals; thread-safe.

    A client that sends one refused credential after another is refused locally for a while.

    Args:
        ask: asks the leader.
        clock: measures how long a refusal is cached.
    """

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        # Until when each credential, by its digest, is refused without asking.
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        # Questions under way: threads that have the same credential wait for one answer.
        self._asked: dict[bytes, Future[Principal | None]] = {}
        self._of_client = Throttle(_OF_CLIENT_MAX, _HALF_SECONDS, clock)
        self._of_all = Throttle(_OF_ALL_MAX, _HALF_SECONDS, clock)

    def may_accept(self, text: str, digest: bytes) -> bool:
        """Whether the leader may know a credential: it has not refused it recently."""
        with self._lock:
            until = self._refused.get(digest, 0.0)
        return len(text) <= _TEXT_CHARS_MAX and self._clock.monotonic() >= until

    def authenticate(self, text: str, digest: bytes, client: str) -> Principal | None:
        """Ask the leader for the principal of a credential, or wait for a pending answer.

        Raises:
            Unavailable: the leader does not answer.
            Busy: `client`, or all clients together, sent too many credentials that it refused.
        """
        with self._lock:
            answer = self._asked.get(digest)
            asking = answer is None
            if answer is None:
                # Only a credential that must be asked about is refused here: the authenticator
                # remembers those that the leader knows.
                if self._of_client.refuses(client) or self._of_all.refuses(""):
                    raise Busy("too many failed logins; try again in a second")
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
