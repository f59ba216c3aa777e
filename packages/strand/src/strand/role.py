"""What producer and consumer have in common: a lock, a native half, an end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

from sennit_core.errors import Closed
from strand.errors import RoleInherited
from strand.owners import RoleLock, forget_in_child

if TYPE_CHECKING:
    from strand.ring import Ring

__all__ = ["NAP_NANOSECONDS", "SPINS", "Refusing", "Role"]

NAP_NANOSECONDS = 150_000_000  # how long a sleeper goes without a look at signals and its peer
SPINS = 0 if len(os.sched_getaffinity(0)) == 1 else 400  # about 10 us, the price of one sleep


class Refusing:
    """Stands in for a native half that must not be used any more: whatever is asked, it raises."""

    def __init__(self, error: type[Closed], what: str) -> None:
        self._error = error
        self._what = what

    def __getattr__(self, name: str) -> NoReturn:
        raise self._error(what=self._what)


class Role:
    """One process's hold on a ring, as its producer or its consumer."""

    _core: Any

    def __init__(self, ring: Ring, lock: RoleLock, native: Any) -> None:
        self._ring = ring
        self._lock = lock
        self._core = native
        self._closed = False
        self._memory = memoryview(ring.memory)
        self.header = ring.header
        forget_in_child(self)

    @property
    def closed(self) -> bool:
        """Whether this role was given up, or belongs to the parent process."""
        return self._closed

    def _let_go(self) -> None:
        self._closed = True
        native, self._core = self._core, Refusing(Closed, f"this {self._noun}")
        native.close()
        self._memory.release()
        self._lock.release()

    def _forget_in_child(self) -> None:
        self._closed = True
        self._core = Refusing(RoleInherited, f"a {self._noun} inherited through fork")
        self._lock.forget()

    @property
    def _noun(self) -> str:
        return type(self).__name__
