"""The audit log: one JSON line for each denied request and each action of an administrator.

Lines go to the logger `elkyn.audit`. They name the caller, the action and the client's address, never
a credential or a stored value.
"""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

from elkyn.auth.principal import Principal
from elkyn.auth.revocations import KEY_CLAIM
from sennit_core.clock import SYSTEM, Clock

__all__ = ["AUDIT_LOGGER", "REFUSALS_MAX", "Audit"]

AUDIT_LOGGER = "elkyn.audit"
_TEXT_MAX = 300
REFUSALS_MAX = 100


class Audit:
    """Writes the lines; thread-safe.

    Any client can cause refusals, so at most `REFUSALS_MAX` are written per second; the next line
    counts the omitted ones in `suppressed`. Actions of administrators are always written.
    """

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._log = logging.getLogger(AUDIT_LOGGER)
        self._clock = clock
        self._lock = threading.Lock()
        # When the current second of counting began; `_written` refusals were logged since.
        self._second = 0.0
        self._written = 0
        # Refusals that were not logged since the last one that was.
        self._suppressed = 0

    def refused(
        self,
        principal: Principal,
        namespace: str,
        path: str,
        write: bool,
        client: str | None = None,
    ) -> None:
        """Log that the rules, or a missing role, denied a caller the access to a path."""
        action = "write" if write else "read"
        self._write(
            logging.WARNING, "refused", action, principal, client, path, namespace=namespace
        )

    def refused_credential(self, fault: str, client: str | None = None, target: str = "") -> None:
        """Log an invalid token, password or key."""
        self._write(logging.WARNING, "refused", "sign-in", None, client, target, fault=fault)

    def acted(
        self, principal: Principal | None, action: str, target: str, client: str | None = None
    ) -> None:
        """Log an action of an administrator, or of a user on their own account."""
        self._write(logging.INFO, "done", action, principal, client, target)

    def _write(
        self,
        level: int,
        outcome: str,
        action: str,
        principal: Principal | None,
        client: str | None,
        target: str,
        **more: str,
    ) -> None:
        if not self._log.isEnabledFor(level):
            return
        suppressed = self._admit() if outcome == "refused" else 0
        if suppressed is None:
            return
        line: dict[str, Any] = {"outcome": outcome, "action": action, "target": target[:_TEXT_MAX]}
        line |= more
        if suppressed:
            line["suppressed"] = suppressed
        if principal is not None:
            line["principal"] = _principal_text(principal)
        if client is not None:
            line["client"] = client
        self._log.log(level, "%s", json.dumps(line, ensure_ascii=True))

    def _admit(self) -> int | None:
        """Return the number of refusals omitted before this one; None: omit this one too."""
        with self._lock:
            now = self._clock.monotonic()
            if now - self._second >= 1:
                self._second, self._written = now, 0
            if self._written >= REFUSALS_MAX:
                self._suppressed += 1
                return None
            self._written += 1
            suppressed, self._suppressed = self._suppressed, 0
            return suppressed


def _principal_text(principal: Principal) -> str:
    if principal.admin:
        key = principal.claims.get(KEY_CLAIM)
        return f"admin key {key}" if key else f"admin {principal.uid or ''}".strip()
    return "unauthenticated" if principal.uid is None else f"user {principal.uid}"
