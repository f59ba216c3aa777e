"""Prepared statements: kept by handle for their caller, within limits."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field

from sennit_core.errors import Busy, NotFound

__all__ = ["Parameters", "Prepared", "PreparedStatements"]

_CALLER_MAX = 256
_BYTES_MAX = 32 << 20
_IDLE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """Rows of parameters, as an Arrow IPC stream that has not been decoded."""

    stream: bytes
    rows: int


@dataclass(slots=True)
class Prepared:
    """A prepared statement.

    Args:
        query: Its text.
        schema: The columns of its result as an IPC message; empty for a change.
        parameters: Bound rows; None before.
        used_at: When it was last used.
    """

    query: str
    schema: bytes
    parameters: Parameters | None = None
    used_at: float = field(default_factory=time.monotonic)

    @property
    def bytes(self) -> int:
        """Memory that it needs."""
        bound = len(self.parameters.stream) if self.parameters else 0
        return len(self.query) + len(self.schema) + bound


class PreparedStatements:
    """All prepared statements of a server; those that are idle for an hour are closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By caller first, so that one caller cannot see or use up those of another.
        self._all: dict[bytes, dict[bytes, Prepared]] = {}

    def add(self, caller: bytes, query: str, schema: bytes) -> bytes:
        """Keep a statement; return its handle.

        Raises:
            Busy: There are too many.
        """
        handle, new = secrets.token_bytes(16), Prepared(query, schema)
        with self._lock:
            self._drop_idle()
            if len(self._all.get(caller, ())) >= _CALLER_MAX:
                raise Busy(
                    f"{_CALLER_MAX} prepared statements are open", hint="close those not in use"
                )
            self._check_room(new.bytes)
            self._all.setdefault(caller, {})[handle] = new
        return handle

    def get(self, caller: bytes, handle: bytes | None) -> Prepared:
        """Return a statement of the caller.

        Raises:
            NotFound: There is no such handle, or it belongs to another caller.
        """
        with self._lock:
            found = self._all.get(caller, {}).get(handle or b"")
            if found is None:
                raise NotFound(
                    "prepared statement",
                    hint="it was closed, was idle for an hour, or the node was restarted",
                )
            found.used_at = time.monotonic()
            return found

    def bind(self, caller: bytes, handle: bytes | None, parameters: Parameters) -> None:
        """Set the parameters of a statement."""
        found = self.get(caller, handle)
        with self._lock:
            self._check_room(len(parameters.stream))
            found.parameters = parameters

    def close(self, caller: bytes, handle: bytes | None) -> None:
        """Forget a statement; an unknown handle is no error."""
        with self._lock:
            own = self._all.get(caller, {})
            own.pop(handle or b"", None)
            if not own:
                self._all.pop(caller, None)

    def _check_room(self, needed: int) -> None:
        used = sum(each.bytes for own in self._all.values() for each in own.values())
        if used + needed > _BYTES_MAX:
            raise Busy("prepared statements use too much memory", hint="close those not in use")

    def _drop_idle(self) -> None:
        oldest = time.monotonic() - _IDLE_SECONDS
        for caller, own in list(self._all.items()):
            kept = {handle: each for handle, each in own.items() if each.used_at >= oldest}
            if kept:
                self._all[caller] = kept
            else:
                del self._all[caller]
