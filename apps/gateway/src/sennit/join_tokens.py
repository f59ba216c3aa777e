"""Tokens with which the tabs of a user join as remote workers.

A tab must not use its user's session: a worker's token can read inputs of its own tasks, and nothing
else. Each tab gets one, which expires.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sennit.auth import WORKER
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Busy, Denied

if TYPE_CHECKING:
    from elytra.backends.remote.backend import RemoteBackend
    from sennit.auth import Principal, Tokens

JOIN_SECONDS = 12 * 3600.0
"""A working day: a tab that computes longer asks for another token."""
JOINED_MAX = 32
"""Join tokens of one user; the oldest that no worker is connected with makes room."""


class JoinTokens:
    """Issues join tokens.

    Args:
        tokens: The node's tokens.
        remote: Knows the workers that are connected, and the tokens that are excluded.
        clock: Source of time.
    """

    def __init__(self, tokens: Tokens, remote: RemoteBackend, clock: Clock = SYSTEM) -> None:
        self._tokens = tokens
        self._remote = remote
        self._clock = clock
        # Two requests of one user must not both find room for one more.
        self._lock = threading.Lock()

    def join(self, principal: Principal) -> dict[str, Any]:
        """Return a token for one worker of a user: `{token, role, expiresAt}`.

        Raises:
            Denied: A worker of this user has returned wrong rows, or broken the protocol.
            Busy: All tokens of this user are in use.
        """
        with self._lock:
            self._make_room(principal.name)
            expires_at = self._clock.now() + JOIN_SECONDS
            token = self._tokens.issue(
                f"a tab of {principal.name}", WORKER, owner=principal.name, expires_at=expires_at
            )
        return {"token": token, "role": WORKER, "expiresAt": expires_at}

    def _make_room(self, owner: str) -> None:
        excluded = self._remote.excluded()
        mine = [each for each in self._tokens.list() if each.get("owner") == owner]
        for each in mine:
            if each["id"] in excluded:
                raise Denied(
                    action="joining as a worker",
                    needed="a user without an excluded worker",
                    hint=f"one of yours was excluded: {excluded[each['id']]}; ask an admin for "
                    f"`platform workers readmit {each['id']}`",
                )
        in_use = {each.token for each in self._remote.sessions()}
        idle = sorted(
            (each for each in mine if each["id"] not in in_use),
            key=lambda each: float(each["expiresAt"]),
        )
        if len(mine) >= JOINED_MAX and not idle:
            raise Busy(f"{len(mine)} tabs of yours compute already; close one, then join again")
        for each in idle[: max(0, len(mine) + 1 - JOINED_MAX)]:
            self._tokens.revoke(each["id"])
