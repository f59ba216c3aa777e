"""Objects of a store as sources and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from emsqrt.io.codecs import RawStream
from emsqrt.io.places import Place
from emsqrt.io.sources import ByteSource
from sennit_core.errors import Unsupported


class ObjectSource(ByteSource):
    """One object, read in ranges."""

    def __init__(self, place: Place) -> None:
        super().__init__(str(place))
        raise Unsupported(f"{place}: this engine does not read object stores yet")

    @property
    def stored_bytes(self) -> int:
        """The object's length."""
        raise NotImplementedError

    def open_raw(self) -> RawStream:
        """Read it from the beginning."""
        raise NotImplementedError

    def read_at(self, offset: int, size: int) -> bytes:
        """Return a part of it."""
        raise NotImplementedError


def list_objects(scheme: str, prefix: str) -> list[str]:
    """Return `bucket/key` of every object below a prefix."""
    raise Unsupported(f"{scheme}://{prefix}: this engine does not read object stores yet")


@contextmanager
def open_object(place: Place) -> Iterator[Any]:
    """Open an object for writing; it appears when this is left in peace."""
    if place:
        raise Unsupported(f"{place}: this engine does not write to object stores yet")
    yield None
